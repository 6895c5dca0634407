"""Cloudflare's own runtime with CPython in it: the `workerd` binary, Pyodide, and the packages a Python Worker has.

`workerd` is run directly, without Node, which only installs and builds. The standard library is byte-compiled once by
the CPython that will run it: a worker then starts in a third of the time.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from tools.components import ROOT, Missing, install, installed, run

HINT = "run `python -m tools.components` (it needs Node 20 or newer with npm)"
SOURCES = ROOT / "tools" / "workerd"

NODE = ("workerd@1.20261117.1", "pyodide@314.0.6")
PACKAGES = (
    "workers-runtime-sdk==1.9.5",
    "starlette==1.10.0",
    "anyio==4.16.0",
    "idna==3.20",
    "typing_extensions==4.16.0",
    "cronsim==2.8",
    "chess==1.11.2",
)
"""What `pip install --target python_modules` brings to a Worker, pinned; `chess` is for one template."""
TEST_PACKAGES = (
    "pytest==9.2.0",
    "pluggy==1.7.0",
    "iniconfig==2.3.1",
    "packaging==26.3",
    "pygments==2.21.0",
    "hypothesis==6.140.0",
    "sortedcontainers==2.4.0",
    "attrs==25.4.0",
    "click==8.5.1",
    "tzdata==2026.6",
)
"""For the core's own suite under Pyodide."""


class Workerd(NamedTuple):
    """Where everything lies."""

    folder: Path

    @property
    def binary(self) -> Path:
        found = sorted((self.folder / "node_modules" / "@cloudflare").glob("workerd-*/bin/workerd*"))
        return found[0]

    @property
    def pyodide(self) -> Path:
        return self.folder / "node_modules" / "pyodide"

    @property
    def packages(self) -> Path:
        """What a Worker finds in `python_modules`, beside Everstep."""
        return self.folder / "packages"

    @property
    def test_packages(self) -> Path:
        return self.folder / "test_packages"

    @property
    def built(self) -> Path:
        """The byte-compiled standard library and what Emscripten needs."""
        return self.folder / "built"


def definition() -> list[str]:
    return [*NODE, *PACKAGES, *TEST_PACKAGES, *[(SOURCES / name).read_text() for name in ("compile.mjs", "build.mjs")]]


def find() -> Workerd | None:
    """Return the installed runtime, or None."""
    where = installed("workerd", definition())
    return Workerd(where) if where is not None and shutil.which("node") else None


def ensure() -> Workerd | None:
    """Return the runtime, installed first if it is missing. Raises Missing."""
    if shutil.which("node") is None:
        raise Missing("there is no Node")
    return Workerd(install("workerd", definition(), _build))


def _build(where: Path) -> None:
    (where / "package.json").write_text('{"private": true, "type": "module"}\n')
    run("npm", "install", "--no-audit", "--no-fund", "--save-exact", "--loglevel=error", *NODE, cwd=where)
    for name, packages in (("packages", PACKAGES), ("test_packages", TEST_PACKAGES)):
        pip = (sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-compile")
        run(*pip, "--target", where / name, *packages)
    for name in ("compile.mjs", "build.mjs"):
        shutil.copyfile(SOURCES / name, where / name)
    (where / "built").mkdir()
    run("node", where / "build.mjs", cwd=where)
