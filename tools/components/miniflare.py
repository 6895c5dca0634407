"""Cloudflare's own simulator of R2: Workers of npm's `miniflare`, which workerd runs beside ours.

Of that package these files alone are taken: what it would install besides is another workerd, and its Node server is
not needed.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple

from tools.components import Missing, install, installed, run

HINT = "run `python -m tools.components` (it needs Node with npm)"
NODE = ("miniflare@4.20260730.0",)


class Miniflare(NamedTuple):
    """Where its Workers lie."""

    folder: Path

    @property
    def workers(self) -> Path:
        return self.folder / "package" / "dist" / "src" / "workers"


def find() -> Miniflare | None:
    """Return what is installed, or None."""
    where = installed("miniflare", NODE)
    return Miniflare(where) if where is not None else None


def ensure() -> Miniflare | None:
    """Return it, downloaded first if it is missing. Raises Missing."""
    if shutil.which("npm") is None:
        raise Missing("there is no npm")
    return Miniflare(install("miniflare", NODE, _build))


def _build(where: Path) -> None:
    run("npm", "pack", "--silent", *NODE, cwd=where)
    (packed,) = where.glob("*.tgz")
    with tarfile.open(packed) as archive:
        wanted = [one for one in archive.getmembers() if one.name.startswith("package/dist/src/workers/")]
        archive.extractall(where, wanted, filter="data")
    packed.unlink()
