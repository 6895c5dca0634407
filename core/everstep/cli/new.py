"""`everstep new`: a template becomes a folder of one's own. Templates travel in the wheel as `everstep/_templates`.

Infrastructure stands once, with the countdown. Another template is deployed with it under its own name, with an entry
point that knows no template, and with whatever the template brings for a platform in place of either.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import everstep
from everstep.errors import UsageError

from .options import parse

PLATFORMS = ("local", "aws", "gcp", "supabase", "cloudflare")
_SHARED = "countdown"
_ENTRIES = "entries"
_PACKAGES = "requirements.txt"
_MIGRATION = "everstep_supabase/sql/everstep.sql"
_MIGRATED = "supabase/migrations/20260101000000_everstep.sql"
_NAMED = (".sh", ".toml", ".md", ".yaml")
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
        return ["local", *(one for one in PLATFORMS[1:] if (self.folder.parent / _SHARED / one).is_dir())]

    def files(self) -> list[str]:
        """What the application consists of, `app.py` first: its modules, folders and data."""
        left_out = {"README.md", _PACKAGES, *PLATFORMS}
        left_out |= shutil.ignore_patterns(*_LEFT_OUT)("", [one.name for one in self.folder.iterdir()])
        found = sorted(one.name for one in self.folder.iterdir() if one.name not in left_out)
        return sorted(found, key=lambda name: (name != "app.py", not name.endswith(".py")))

    def example(self) -> tuple[str, list[Any]]:
        """The id and the arguments of the run that its README begins with."""
        text = (self.folder / "README.md").read_text("utf-8")
        for line in text.splitlines():
            if line.startswith(("everstep run app:app ", "everstep start app:app ")):
                words = shlex.split(line, comments=True)[4:]
                at = words.index("--id")
                return words[at + 1], [parse(word) for word in words[:at]]
        return self.name, []

    def workflow(self) -> str:
        """The name of its first workflow."""
        found = re.search(r"@app\.workflow.*?\n(?:async )?def (\w+)", (self.folder / "app.py").read_text("utf-8"))
        return found[1] if found is not None else self.name


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

    def left_out(at: str, names: list[str]) -> set[str]:
        ignored = set(shutil.ignore_patterns(*_LEFT_OUT)(at, names))
        return ignored | ({*names} & {*PLATFORMS} if Path(at) == template.folder else set())

    try:
        shutil.copytree(template.folder, folder, ignore=left_out, dirs_exist_ok=True)
        if platform != "local":
            _equip(template, folder / platform)
        if platform == "supabase":
            _migrate(folder / platform)
    except OSError as error:
        raise CannotCreate(f"cannot write to {folder}: {error.strerror or error}") from None
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _migrate(into: Path) -> None:
    """The adapter's migration, of which there is one, where the Supabase CLI looks for it."""
    package = Path(everstep.__file__).resolve().parent
    for place in (package.parent, package.parent.parent / "adapters" / "supabase"):
        if (place / _MIGRATION).is_file():
            (into / _MIGRATED).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place / _MIGRATION, into / _MIGRATED)
            return


def _examples(template: Template) -> dict[str, str]:
    """How to start one, in place of the countdown's: in a page's quotation marks and in those of a script."""
    id, args = template.example()
    body = json.dumps({"id": id, "args": args}, ensure_ascii=False)
    call = json.dumps({"workflow": template.workflow(), "id": id, "args": args}, ensure_ascii=False)
    printed = re.sub(r'(["\\$`])', r"\\\1", body)
    return {
        r"{\"id\": \"c1\", \"args\": [5, 60]}": printed,
        "EXAMPLE_BODY": shlex.quote(body),
        "EXAMPLE_CALL": shlex.quote(call),
        "EXAMPLE_ID": shlex.quote(id),
    }


def _equip(template: Template, into: Path) -> None:
    """What a platform needs: the countdown's infrastructure under this template's name, and what is its own."""
    ignored = shutil.ignore_patterns(*_LEFT_OUT)
    place = template.folder.parent
    examples = _examples(template)
    for layer in (place / _SHARED, place / _ENTRIES) if template.name != _SHARED else ():
        shutil.copytree(layer / into.name, into, ignore=ignored, dirs_exist_ok=True)
    for path in into.rglob("*") if into.exists() else ():
        if path.suffix in _NAMED and path.is_file():
            text = path.read_text(encoding="utf-8")
            text = text.replace(f"/workflows/{_SHARED}", f"/workflows/{template.workflow()}")
            text = text.replace("WORKFLOW", template.workflow()).replace("TEMPLATE", template.name)
            if template.name != _SHARED:
                for mark, example in examples.items():
                    text = text.replace(mark, example)
            text = re.sub(r'^(files="|FILES=\()app\.py\b', rf"\1{' '.join(template.files())}", text, flags=re.MULTILINE)
            if path.name != "README.md":
                text = re.sub(rf"\b{_SHARED}\b", template.name, text)
            path.write_text(text, encoding="utf-8")
    if (template.folder / into.name).is_dir():
        shutil.copytree(template.folder / into.name, into, ignore=ignored, dirs_exist_ok=True)
    packages, deployed = template.folder / _PACKAGES, into / _PACKAGES
    if packages.is_file() and deployed.is_file():
        deployed.write_text(deployed.read_text(encoding="utf-8") + packages.read_text(encoding="utf-8"), "utf-8")
