"""Puts into `python_modules` what a Worker of ours needs: `python -m everstep_cloudflare.vendor python_modules`.

A Worker's size counts when it starts, so Everstep travels without what no Worker uses (the command line, the testing
kit, the embedded stores) and without its words: docstrings and comments become blank lines and an indent is one space,
so that a traceback still points to the right line. The other packages are what `pip` installs.
"""

from __future__ import annotations

import argparse
import ast
import io
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Sequence
from pathlib import Path

import everstep

PACKAGES = ("workers-runtime-sdk>=1.9", "starlette>=0.40", "cronsim>=2.6")
"""Pure Python all of them, with what they need themselves."""
LEFT_OUT = (
    *("_templates", "cli", "mcp", "testing", "wakers"),
    *("stores/sqlite.py", "stores/sqlite_file.py", "stores/sqlite_find.py", "stores/liveness.py", "stores/counted.py"),
    *("local.py", "background.py", "sync.py", "scripts.py", "pull.py", "supervise.py", "transitions.py"),
    "models/pydantic_ai.py",
    *("staticcheck.py", "staticrules.py", "staticsource.py"),
)
"""Parts of `everstep` that no Worker uses."""


def vendor(folder: Path, packages: Sequence[str] = PACKAGES) -> int:
    """Fill `folder`; what was in it of ours is replaced.

    Returns:
        The bytes of Everstep's own part.

    Raises:
        subprocess.CalledProcessError: pip could not install the packages; it has said why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if packages:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--no-compile", "--target", str(folder)]
        subprocess.run([*pip, *packages], check=True)
    own = Path(__file__).resolve().parent
    return _copy(Path(everstep.__file__).resolve().parent, folder / "everstep", LEFT_OUT) + _copy(
        own, folder / own.name, (Path(__file__).name,)
    )


def _copy(source: Path, target: Path, left_out: Sequence[str]) -> int:
    shutil.rmtree(target, ignore_errors=True)
    total = 0
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source)
        name = inner.as_posix()
        if (
            not path.is_file()
            or path.suffix == ".pyc"
            or any(name == one or name.startswith(f"{one}/") for one in left_out)
        ):
            continue
        data = path.read_bytes()
        if path.suffix == ".py":
            data = narrow(without_words(data.decode())).encode()
        (target / inner).parent.mkdir(parents=True, exist_ok=True)
        (target / inner).write_bytes(data)
        total += len(data)
    return total


def without_words(source: str) -> str:
    """A module's source with each statement where it was, and no docstring or comment in it."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    for statement in ast.walk(ast.parse(source)):
        match statement:
            case ast.Expr(value=ast.Constant(value=str()), end_lineno=int(end), end_col_offset=int(column)):
                first, last = statement.lineno - 1, end - 1
                rest = lines[last].encode()[column:].decode()
                # An empty text stays: a body may hold nothing else, and it may come before a `from __future__`.
                lines[first] = f'{lines[first].encode()[: statement.col_offset].decode()}""{rest}'
                lines[first + 1 : last + 1] = [""] * (last - first)
    return "\n".join(lines) + "\n"


def narrow(source: str) -> str:
    """A module's source with one space for each indent, and none where a statement goes on; texts stay as they are."""
    lines = source.splitlines()
    depth, begins, taken = 0, True, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        match token.type:
            case tokenize.INDENT:
                depth += 1
            case tokenize.DEDENT:
                depth -= 1
            case tokenize.NEWLINE:
                begins = True
            case tokenize.NL | tokenize.COMMENT | tokenize.ENDMARKER:
                pass
            case _:
                row, end = token.start[0], token.end[0]
                if row > taken:
                    lines[row - 1] = " " * (depth if begins else 0) + lines[row - 1].lstrip()
                begins, taken = False, max(taken, end)
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m everstep_cloudflare.vendor", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="python_modules, beside wrangler.toml")
    parser.add_argument("--with", dest="more", action="append", default=[], metavar="PACKAGE", help="install it too")
    parser.add_argument("--requirements", type=Path, help="a file of packages to install too, if it is there")
    given = parser.parse_args(arguments)
    if given.requirements is not None and given.requirements.is_file():
        given.more += [f"--requirement={given.requirements}"]
    size = vendor(given.folder, (*PACKAGES, *given.more))
    print(f"{given.folder}: Everstep's own part is {size // 1000} KB")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
