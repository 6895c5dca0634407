"""`python -m everstep_aws.package build --app .. --with chess`: what the function's zip holds, from this environment.

The versions that were tested are the versions that are deployed: installed packages are copied, file by file, and
nothing is fetched. What Lambda has already (boto3) stays out, and so does what no function uses: the command line, the
testing kit, the other adapters. A package with compiled files is refused: it may have been built for another machine.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata, util
from pathlib import Path

from everstep.errors import UsageError

NEEDED = ("mangum", "starlette", "cronsim", "tzdata")
PRESENT = {"boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3"}
"""What the Python runtimes of Lambda bring."""
_LEFT_OUT = ("testing", "cli", "mcp", "_templates", "__pycache__", "page.html")
_COMPILED = (".so", ".pyd", ".dylib")
_SKIPPED = ("__pycache__", ".venv", ".git", "aws", "build", "node_modules")


class CannotPackage(UsageError):
    """The package cannot be made from this environment; the message says why."""


def package(target: Path, app: Path | None = None, extra: Sequence[str] = ()) -> list[str]:
    """Fill an empty folder with everything a function needs; returns the distributions that were copied.

    Args:
        app: a folder whose Python files (and packages) go in too.
        extra: further distributions that the application needs.

    Raises:
        CannotPackage: one is not installed, or has compiled files.
    """
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    for name in ("everstep", "everstep_aws"):
        spec = util.find_spec(name)
        if spec is None or spec.origin is None:
            raise CannotPackage(f"{name} is not installed here")
        ignore = shutil.ignore_patterns(*_LEFT_OUT, "*.pyc")
        shutil.copytree(Path(spec.origin).parent, target / name, ignore=ignore)
    names = _closure([*NEEDED, *extra])
    for name in names:
        _copy(metadata.distribution(name), target)
    if app is not None:
        for path in app.iterdir():
            if path.suffix == ".py":
                shutil.copy(path, target / path.name)
            elif path.is_dir() and path.name not in _SKIPPED and (path / "__init__.py").is_file():
                shutil.copytree(path, target / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    return names


def _listed(requirements: Path | None) -> list[str]:
    """The distributions that a file names; which version is installed here is which is deployed."""
    if requirements is None or not requirements.is_file():
        return []
    lines = [line.partition("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    asked = [line.partition(";") for line in lines if line]
    return [re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0] for text, _, marker in asked if _holds(marker)]


def _closure(wanted: Iterable[str]) -> list[str]:
    """These distributions and what they require, but for extras and for what Lambda has."""
    found: dict[str, None] = {}
    left = list(wanted)
    while left:
        name = _normal(left.pop(0))
        if name in found or name in PRESENT or name == "everstep":
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise CannotPackage(
                f"{name} is not installed here; pip install 'everstep[aws]', and what you need"
            ) from None
        found[name] = None
        for requirement in distribution.requires or ():
            text, _, marker = requirement.partition(";")
            if "extra" not in marker and _holds(marker):
                left.append(re.split(r"[^A-Za-z0-9._-]", text.strip(), maxsplit=1)[0])
    return sorted(found)


def _holds(marker: str) -> bool:
    """Whether a requirement's marker may hold here. Comparisons of the Python version alone are understood; any other
    counts as true, so that what is needed is there."""
    found = re.fullmatch(r"""\s*python_version\s*(<=?|>=?)\s*["']3\.(\d+)["']\s*""", marker)
    if found is None:
        return True
    minor = int(found[2])
    return {"<": sys.version_info.minor < minor, "<=": sys.version_info.minor <= minor}.get(
        found[1], sys.version_info.minor > minor or (found[1] == ">=" and sys.version_info.minor == minor)
    )


def _copy(distribution: metadata.Distribution, target: Path) -> None:
    for file in distribution.files or ():
        if file.parts[0] == ".." or "__pycache__" in file.parts or file.parts[0].endswith(".dist-info"):
            continue
        if file.suffix in _COMPILED:
            raise CannotPackage(
                f"{distribution.name} has compiled files ({file}): install it for Lambda with pip install --target "
                "<folder> --platform manylinux2014_x86_64 --only-binary=:all:"
            )
        to = target / Path(*file.parts)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(file.locate()), to)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m everstep_aws.package", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", type=Path, help="the folder to fill; what it holds is removed first")
    parser.add_argument("--app", type=Path, help="a folder whose Python files go in too")
    parser.add_argument("--requirements", type=Path, help="a file of further distributions, if it is there")
    parser.add_argument("--with", dest="extra", action="append", default=[], help="one more distribution; repeatable")
    given = parser.parse_args(arguments)
    try:
        names = package(given.target, given.app, [*given.extra, *_listed(given.requirements)])
    except CannotPackage as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    size = sum(path.stat().st_size for path in given.target.rglob("*") if path.is_file())
    print(f"{given.target}: everstep, {', '.join(names)}; {size / 1e6:.1f} MB before it is zipped")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
