"""`everstep new`: a template becomes a folder of one's own. Templates travel in the wheel as `everstep/_templates`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import everstep
from everstep.errors import UsageError

PLATFORMS = ("local", "aws", "gcp", "supabase", "cloudflare")
_LEFT_OUT = (
    "__pycache__",
    "python_modules",
    "*.pyc",
    "*.db",
    "*.db-wal",
    "*.db-shm",
    "*.db.*",
    "notifications.log",
    "board.*",
)


class CannotCreate(UsageError):
    """The folder could not be made; the message says why."""


class Template(NamedTuple):
    name: str
    about: str
    folder: Path

    @property
    def platforms(self) -> list[str]:
        """Where it can be deployed; every template runs locally."""
        return ["local", *(one for one in PLATFORMS[1:] if (self.folder / one).is_dir())]


def places() -> Iterator[Path]:
    """Where templates may be: in an installed package, or beside the sources."""
    package = Path(everstep.__file__).resolve().parent
    yield package / "_templates"
    yield package.parent.parent / "templates"


def templates() -> dict[str, Template]:
    for place in places():
        if place.is_dir():
            found = sorted(path for path in place.iterdir() if (path / "app.py").is_file())
            return {path.name: Template(path.name, _about(path), path) for path in found}
    return {}


def _about(folder: Path) -> str:
    """The first paragraph of its README."""
    readme = folder / "README.md"
    if not readme.is_file():
        return ""
    for paragraph in readme.read_text(encoding="utf-8").split("\n\n"):
        if paragraph.strip() and not paragraph.lstrip().startswith(("#", "```")):
            return " ".join(paragraph.split())
    return ""


def create(name: str, folder: Path, platform: str) -> list[Path]:
    """Copy a template and return its files. Raises CannotCreate."""
    known = templates()
    template = known.get(name)
    if template is None:
        raise CannotCreate(f"there is no template {name!r}; there are {', '.join(known) or 'none'}")
    if platform not in template.platforms:
        raise CannotCreate(f"template {name} has nothing for {platform} yet; it has {', '.join(template.platforms)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CannotCreate(f"{folder} exists and is not an empty folder; choose another name")
    others = [one for one in PLATFORMS if one != platform]

    def left_out(at: str, names: list[str]) -> set[str]:
        ignored = set(shutil.ignore_patterns(*_LEFT_OUT)(at, names))
        return ignored | ({one for one in names if one in others} if Path(at) == template.folder else set())

    try:
        shutil.copytree(template.folder, folder, ignore=left_out, dirs_exist_ok=True)
    except OSError as error:
        raise CannotCreate(f"cannot write to {folder}: {error.strerror or error}") from None
    return sorted(path for path in folder.rglob("*") if path.is_file())
