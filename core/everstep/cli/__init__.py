"""The command line. Every command says what it did or whose turn it is, and its exit code means the same everywhere:
0 done, 1 the workflow failed (or a check found something), 2 it could not be asked that way, 3 still pending.

`everstep --version` answers before anything else is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in (["--version"], ["-V"]):
        print(f"everstep {version()}")
        return 0
    try:
        from .commands import run
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        print(f"the command line needs {error.name}: pip install 'everstep[dev]'", file=sys.stderr)
        return 2
    return run(given)


def version() -> str:
    """The installed version; a source tree that nobody installed has none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("everstep")
    except PackageNotFoundError:
        return "from source"
