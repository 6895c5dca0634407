"""What tests need beyond Python packages: a browser, emulators, other languages' packages.

Each module here is one component: `find()` looks for it and downloads nothing, `ensure()` installs it where that is
ours to do (into `.components/` at the root of the repository), `HINT` tells a person how to get it. Whatever is
installed lies in a folder named by what defines it, so that a change of version is a new folder, and a folder without
its stamp is begun anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = ROOT / ".components"


class Component(Protocol):
    """A module of this package."""

    HINT: str

    def find(self) -> Any:
        """The component, ready to be used, or None. Cheap, and never downloads."""
        ...

    def ensure(self) -> Any:
        """The component, installed first if it is missing and installing is ours to do; or None."""
        ...


class Missing(Exception):
    """A component could not be installed; the message says why."""


def names() -> list[str]:
    """Every component there is."""
    return sorted(one.name for one in pkgutil.iter_modules(__path__))


def component(name: str) -> Component:
    """The module of one component."""
    return import_module(f"{__name__}.{name}")


def ensure_all() -> dict[str, bool]:
    """Install what is missing, one after the other; tells which are there now. One that fails stops no other."""
    there = {}
    for name in names():
        try:
            there[name] = component(name).ensure() is not None
        except (Missing, OSError, subprocess.SubprocessError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            there[name] = False
        print(f"{name}: {'there' if there[name] else 'missing; ' + component(name).HINT}", flush=True)
    return there


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Two installations of the same thing wait for each other."""
    HOME.mkdir(exist_ok=True)
    with open(HOME / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def folder(name: str, definition: Sequence[str]) -> Path:
    """Where a component so defined lies, installed or not."""
    return HOME / f"{name}-{hashlib.sha256(chr(0).join(definition).encode()).hexdigest()[:12]}"


def installed(name: str, definition: Sequence[str]) -> Path | None:
    """The folder of a component that was installed to the end, or None."""
    where = folder(name, definition)
    return where if (where / ".installed").is_file() else None


def install(name: str, definition: Sequence[str], build: Callable[[Path], None]) -> Path:
    """Return the component's folder, filled by `build` first unless it was.

    Args:
        definition: all that the content depends on: versions above all.
        build: fills an empty folder; whatever it raises leaves the folder unfinished, to be begun anew next time.

    Raises:
        Missing: a command of `build` failed.
    """
    with locked(name):
        if found := installed(name, definition):
            return found
        where = folder(name, definition)
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir(parents=True)
        print(f"{name}: installing {' '.join([part for part in definition if len(part) < 80])}", flush=True)
        build(where)
        (where / ".installed").touch()
        return where


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run an installer quietly. Raises Missing with the end of what it printed when it fails or does not exist."""
    words = [str(word) for word in command]
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(words, cwd=cwd, env={**clean, **(env or {})}, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Missing(f"{words[0]} cannot be run: {error}") from error
    if done.returncode:
        raise Missing(f"{' '.join(words[:4])} failed: {done.stderr[-1500:] or done.stdout[-1500:]}")


def virtualenv(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of a virtual environment with these requirements, apart from ours. Raises Missing."""
    import venv  # not everywhere: no Python in a browser or a Worker has it

    definition = [sys.version.split()[0], *requirements]

    def build(where: Path) -> None:
        venv.create(where, with_pip=True)
        run(where / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements)

    return install(name, definition, build) / "bin" / "python"


def virtualenv_found(name: str, requirements: Sequence[str]) -> Path | None:
    """The same if it is there."""
    found = installed(name, [sys.version.split()[0], *requirements])
    return found / "bin" / "python" if found else None


def npm(name: str, packages: Sequence[str]) -> Path:
    """A folder whose `node_modules` holds these packages. Raises Missing."""

    def build(where: Path) -> None:
        (where / "package.json").write_text('{"private": true}\n')
        run("npm", "install", "--no-audit", "--no-fund", "--save-exact", "--loglevel=error", *packages, cwd=where)

    return install(name, packages, build)


def apt(*packages: str) -> None:
    """Install Debian's packages, as root on a machine that has apt-get; what CI and containers are. Raises Missing."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Missing("only root on a Debian machine installs packages of the system")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with locked("apt"):
        run("apt-get", "update", "-qq", env=quiet)
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages, env=quiet)


if __name__ == "__main__":
    sys.exit(0 if all(ensure_all().values()) else 1)
