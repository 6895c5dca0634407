"""Builds a virtual environment once and leaves it alone until its definition changes.

The stamp inside it holds a hash of what defines it: pyproject.toml, the extras and the interpreter. A lock file makes
two builds at once wait for each other. Runs on the standard library alone, since nothing is installed before it.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def fingerprint(extras: str) -> str:
    parts = [(ROOT / "pyproject.toml").read_bytes(), extras.encode(), sys.version.encode(), str(ROOT).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def install(folder: Path, extras: str) -> Path:
    """Return the environment's interpreter, building or refreshing the environment first if it is stale.

    Raises subprocess.CalledProcessError when pip fails; the stamp is then absent, so that the next call tries again.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    stamp = folder / ".stamp"
    wanted = fingerprint(extras)
    with open(folder.parent / f".{folder.name.lstrip('.')}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text() == wanted and python.exists():
            return python
        stamp.unlink(missing_ok=True)
        print(f"setting up {folder} (Python {sys.version.split()[0]}, extras: {extras})", flush=True)
        if not usable(python):
            venv.create(folder, with_pip=True, clear=folder.exists())
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", f".[{extras}]"]
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        done = subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.stderr.write(done.stderr)
            done.check_returncode()
        stamp.write_text(wanted)
    return python


def usable(python: Path) -> bool:
    """Whether the environment there runs the interpreter we run: otherwise it is rebuilt from nothing."""
    if not python.exists():
        return False
    answer = subprocess.run(
        [str(python), "-c", "import pip, sys; print(sys.version)"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() == sys.version.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description="Build or refresh a virtual environment.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--extras", required=True)
    options = parser.parse_args()
    try:
        install((ROOT / options.folder), options.extras)
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    return 0


if __name__ == "__main__":
    sys.exit(main())
