"""The official Resonate SDKs, unmodified, as clients of the gateway: TypeScript on a Node of its own, and Python.

`esbuild` makes the one file of the TypeScript SDK that a page in a browser loads.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from tools.components import ROOT, Missing, install, installed, npm, run

HINT = "python -m tools.components installs the Resonate SDKs; npm and a Python of 3.12 or newer are needed"
PACKAGES = ("@resonatehq/sdk@0.11.5", "node@22.23.3", "esbuild@0.28.1")
REQUIREMENTS = ("resonate-sdk==0.8.1",)
_TS, _PY = "resonate-sdk-ts", "resonate-sdk-py"


class Sdks(NamedTuple):
    """Attributes:
    node: an executable, new enough for the SDK.
    modules: the folder whose `node_modules` holds `@resonatehq/sdk`.
    esbuild: an executable.
    python: an interpreter that imports `resonate`.
    """

    node: Path
    modules: Path
    esbuild: Path
    python: Path


def find() -> Sdks | None:
    """Return the SDKs if both are installed."""
    ts, py = installed(_TS, PACKAGES), installed(_PY, REQUIREMENTS)
    return _sdks(ts, py) if ts and py else None


def _sdks(ts: Path, py: Path) -> Sdks:
    modules = ts / "node_modules"
    return Sdks(modules / "node" / "bin" / "node", ts, modules / ".bin" / "esbuild", py / "bin" / "python")


def ensure() -> Sdks | None:
    """Return the SDKs, installed first if need be. Raises Missing."""
    return find() or _sdks(npm(_TS, PACKAGES), install(_PY, REQUIREMENTS, _virtualenv))


def _virtualenv(where: Path) -> None:
    python = _python()
    if python is None:
        raise Missing("the Resonate SDK needs Python 3.12 or newer, and none was found")
    run(python, "-m", "venv", where)
    run(where / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", *REQUIREMENTS)


def _python() -> str | None:
    """An interpreter of 3.12 or newer, which ours need not be."""
    found = subprocess.run(["sh", "tools/pythons.sh", "all"], cwd=ROOT, capture_output=True, text=True, check=False)
    for line in reversed(found.stdout.splitlines()):
        version, _, path = line.partition(" ")
        if tuple(map(int, version.split("."))) >= (3, 12):
            return path
    return None


__all__ = ["HINT", "PACKAGES", "REQUIREMENTS", "Sdks", "ensure", "find"]
