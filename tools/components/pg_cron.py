"""The real pg_cron, where Debian's Postgres is: its package unpacked beside a copy of the server, which needs no root.

Postgres looks for extensions relative to where its own program lies, so that a copy of it, with links to everything
else, finds the extension in its own folder and nothing in the system is changed. Debian's version of it may be older
than 1.5, which knows no intervals of seconds.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tools.components import Missing, folder, install, installed, run

HINT = "on Debian with its postgresql-15: python -c 'from tools.components import pg_cron; pg_cron.ensure()'"
_SYSTEM = Path("/usr/lib/postgresql")


def _servers() -> list[Path]:
    """Debian's servers, the newest last."""
    return sorted(place for place in _SYSTEM.glob("*") if (place / "bin/initdb").is_file())


def _definition() -> list[str]:
    return [f"postgresql-{place.name}-cron" for place in _servers()[-1:]]


def find() -> Path | None:
    """A folder of binaries whose server has pg_cron, or None."""
    where = installed("pg-cron", _definition()) if _definition() else None
    return next(where.glob("usr/lib/postgresql/*/bin"), None) if where is not None else None


def ensure() -> Path | None:
    """Download and unpack the package, where apt has it; what cannot be had is left out."""
    if not _servers() or shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    server = _servers()[-1]

    def build(where: Path) -> None:
        packages = where / "packages"
        packages.mkdir(parents=True)
        try:
            run("apt-get", "download", *_definition(), cwd=packages)
        except Missing:
            run("apt-get", "update", "-qq")
            run("apt-get", "download", *_definition(), cwd=packages)
        for package in packages.iterdir():
            run("dpkg-deb", "-x", package, where)
        _beside(server, where / server.relative_to("/"))
        _beside(Path("/usr/share/postgresql") / server.name, where / "usr/share/postgresql" / server.name)

    try:
        install("pg-cron", _definition(), build)
    except Missing as error:
        shutil.rmtree(folder("pg-cron", _definition()), ignore_errors=True)
        print(f"pg_cron: {error}", file=sys.stderr)
    return find()


def _beside(original: Path, copy: Path) -> None:
    """Fill a folder up with what another has: programs are copied, for they look where they lie, the rest is linked."""
    for path in original.rglob("*"):
        to = copy / path.relative_to(original)
        if path.is_dir():
            to.mkdir(parents=True, exist_ok=True)
        elif not to.exists():
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.parent.name == "bin":
                shutil.copy2(path, to)
            else:
                to.symlink_to(path.resolve())
