"""Puts into `python_modules` what a Worker of ours needs: `python -m everstep_cloudflare.vendor python_modules`.

A Worker's size counts when it starts. So Everstep travels as what a Worker's imports reach, without what no Worker can
use, and its sources without what only people and type checkers read (see `shrink`). Importing what was left out says
so; what the App imports comes along, and so does what `--keep` names. The other packages are what `pip` installs.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

import everstep
import everstep.http

from .shrink import shrunk

PACKAGES = ("workers-runtime-sdk>=1.9", "starlette>=0.40", "cronsim>=2.6")
"""Pure Python all of them, with what they need themselves."""
OWN = "everstep_cloudflare"
UNUSABLE = {
    "everstep.background": "a Worker has no thread",
    "everstep.blobs": "a Worker has no disk, and its blobs are R2's",
    "everstep.costs": "it is for people who look at a run",
    "everstep.http.bearer": "it needs PyJWT and cryptography, add --with both",
    "everstep.http.debug": "it is for tests of the protocol",
    "everstep.http.hub": "no connection outlives a Worker's request",
    "everstep.http.poll": "no connection outlives a Worker's request",
    "everstep.http.limits": "a Worker counts nothing from one request to the next",
    "everstep.local": "a Worker's runtime is its objects",
    "everstep.peers": "each App finds what is due for it",
    "everstep.resuming": "it is for stores that resume by themselves",
    "everstep.stores": "a Worker's store is its objects",
    "everstep.sync": "a Worker has no thread",
    "everstep.wakers": "a Worker is woken by alarms",
    f"{OWN}.shrink": "",
    f"{OWN}.vendor": "",
}
"""Modules that others import, in places that no Worker comes to, and why none does."""
_FINDER = "_left_out"
_SAYS = f"""import sys
class Finder:
 def find_spec(self,name,path=None,target=None):
  if name in WHY:
   raise ImportError(f"{{name}} was left out of python_modules{{WHY[name]}}; to keep it:\
 python -m {OWN}.vendor --keep {{name}} python_modules",name=name)
sys.meta_path.append(Finder())
"""
"""What is asked for that nobody found, and that stayed behind, is refused in these words."""


_OPENAPI = "everstep.http.openapi"
_DOCUMENT = """import gzip,json
from importlib.resources import files
def describe(root=""):
 document=json.loads(gzip.decompress(files("everstep.http").joinpath("openapi.json.gz").read_bytes()))
 return{**document,"servers":[{"url":root.rstrip("/")or"/"}]}
"""
"""A document that is always the same need not be made anew."""


class Vendored(NamedTuple):
    """What was put together."""

    size: int
    """Bytes of Everstep's own files."""
    others: int
    """Bytes of the files of other packages."""
    left_out: Mapping[str, str]
    """Modules and packages that stayed behind, and why where that is known."""


class Missing(Exception):
    """An App imports what no Worker can use, or was to keep what is not there; the message says what and where."""


def vendor(
    folder: Path, packages: Sequence[str] = PACKAGES, *, keep: Sequence[str] = (), app: Path | None = None
) -> Vendored:
    """Fill `folder`; what was in it of ours is replaced.

    Args:
        packages: what pip is to install beside.
        keep: modules of `everstep`, by their full names, that a Worker would not get by itself.
        app: the folder of the App's own modules; what they import comes along.

    Raises:
        Missing: there is no such module to keep, or the App imports one that no Worker can use.
        subprocess.CalledProcessError: pip could not install the packages; it has said why.
    """
    there = modules()
    for name in keep:
        if name not in there:
            raise Missing(f"there is no module {name!r} to keep")
    keep = [*keep, *_wanted(app, keep)] if app is not None else keep
    folder.mkdir(parents=True, exist_ok=True)
    if packages:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--no-compile", "--target", str(folder)]
        subprocess.run([*pip, *packages], check=True)
    for own in ("everstep", OWN):
        shutil.rmtree(folder / own, ignore_errors=True)
    others = _size(folder)
    imports = {name: imported(name, path) for name, path in there.items()}
    plain, reached = reachable(imports), reachable(imports, keep)
    for name in reached:
        path, text = there[name], there[name].read_text()
        # What is kept may hold functions whose annotations are read: workflows, or tools of a model.
        if name in plain:
            text = _DOCUMENT if name == _OPENAPI else shrunk(text, _asked(imports, reached, name))
        _write(folder, path, name, text.encode())
    for file, data in _compressed():
        _write(folder, Path(file), "everstep.http", gzip.compress(data, mtime=0))
    left_out = _left_out(there, reached)
    why = {name: f" ({why})" if why else "" for name, why in left_out.items()}
    _write(folder, Path(f"{_FINDER}.py"), f"everstep.{_FINDER}", f"{_SAYS}WHY={why}\n".encode())
    with (folder / "everstep" / "__init__.py").open("a") as init:
        init.write(f"from . import {_FINDER}\n")
    return Vendored(_size(folder / "everstep") + _size(folder / OWN), others, left_out)


def reachable(imports: Mapping[str, Collection[str]], keep: Sequence[str] = ()) -> list[str]:
    """The modules that a Worker can come to import, those that users name included, and what is to be kept."""
    # What users name is found by `__getattr__`.
    named = {f"everstep.{one}" for one in everstep._LAZY.values()}
    named |= {f"everstep.http.{one}" for one in everstep.http._HOME.values()}
    left = [*keep, *(one for one in (*named, OWN) if one not in UNUSABLE)]
    reached = set[str]()
    while left:
        name = left.pop()
        if name in imports and name not in reached:
            reached.add(name)
            above = name.rpartition(".")[0]
            left += [one for one in (above, *imports[name]) if one == above or not _unusable(one)]
    return sorted(reached)


def _asked(imports: Mapping[str, Collection[str]], reached: Sequence[str], name: str) -> frozenset[str]:
    """What others take from a module."""
    taken = [one.rpartition(".") for other in reached for one in imports[other]]
    return frozenset(last for above, _, last in taken if above == name)


def imported(name: str, path: Path) -> set[str]:
    """What a module imports when it runs, at its top or later; with the names that it takes from there."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    left: list[ast.AST] = [ast.parse(path.read_text())]
    while left:
        match left.pop():
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=rest):
                left += rest
            case ast.Import(names=names):
                found |= {one.name for one in names}
            case ast.ImportFrom(module=module, names=names, level=level):
                base = resolve_name("." * level + (module or ""), package)
                found |= {base, *(f"{base}.{one.name}" for one in names)}
            case node:
                left += ast.iter_child_nodes(node)
    return found


def _wanted(app: Path, kept: Sequence[str]) -> list[str]:
    """The modules of `everstep` that the files of an App import. Raises Missing for one that no Worker can use."""
    there, wanted = modules(), list[str]()
    for path in sorted(app.rglob("*.py")):
        for name in sorted(imported(path.stem, path)):
            above, _, last = name.rpartition(".")
            name = f"everstep.{everstep._LAZY[last]}" if above == "everstep" and last in everstep._LAZY else name
            if name not in there or name in kept:
                continue
            if why := [UNUSABLE[one] for one in (name, *_above(name)) if one in UNUSABLE]:
                raise Missing(
                    f"{path} imports {name}, which is left out: {why[0]}; to have it all the same: --keep {name}"
                )
            wanted.append(name)
    return wanted


def _compressed() -> Iterator[tuple[str, bytes]]:
    """Files of `everstep.http` that are data."""
    from everstep.http.openapi import describe

    yield "openapi.json.gz", json.dumps(describe()).encode()
    yield "page.html.gz", Path(everstep.http.__file__).with_name("page.html").read_bytes()


def _unusable(name: str) -> bool:
    return any(one in UNUSABLE for one in (name, *_above(name)))


def _above(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def modules() -> dict[str, Path]:
    """Every module of Everstep's, and of this package."""
    found: dict[str, Path] = {}
    for root in (Path(everstep.__file__).resolve().parent, Path(__file__).resolve().parent):
        for path in sorted(root.rglob("*.py")):
            name = ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
            if "_templates" not in name:
                found[name] = path
    return found


def _left_out(there: Mapping[str, Path], reached: Sequence[str]) -> dict[str, str]:
    """The topmost of what was not reached."""
    return {
        name: UNUSABLE.get(name, "")
        for name in there
        if name.startswith("everstep.") and name not in reached and name.rpartition(".")[0] in reached
    }


def _write(folder: Path, path: Path, name: str, data: bytes) -> None:
    """Write what goes to a module's place: into its folder where the file is an `__init__` or beside one."""
    package = name.split(".") if path.name == "__init__.py" or path.suffix != ".py" else name.split(".")[:-1]
    target = folder.joinpath(*package, path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog=f"python -m {OWN}.vendor", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="python_modules, beside wrangler.toml")
    parser.add_argument("--with", dest="more", action="append", default=[], metavar="PACKAGE", help="install it too")
    parser.add_argument(
        "--keep", action="append", default=[], metavar="MODULE", help="of everstep: do not leave it out"
    )
    parser.add_argument("--app", type=Path, metavar="FOLDER", help="whose imports come along; by default src, beside")
    parser.add_argument("--requirements", type=Path, help="a file of packages to install too, if it is there")
    given = parser.parse_args(arguments)
    if given.requirements is not None and given.requirements.is_file():
        given.more += [f"--requirement={given.requirements}"]
    try:
        app = given.app or given.folder.resolve().parent / "src"
        done = vendor(given.folder, (*PACKAGES, *given.more), keep=given.keep, app=app)
    except Missing as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(f"{given.folder}: {done.size // 1000} KB of Everstep, {done.others // 1000} KB of other packages")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
