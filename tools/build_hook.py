"""The wheel carries code, and the words its users read.

A module that nobody imports by name goes into the wheel without comments and docstrings; they are in the repository.
Every statement stays on its line, so a traceback points to the same place in both. What `help()` shows of the public
names stays readable, and so does the command line's help, which is made of docstrings. The archive is then deflated as
far as it goes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CORE = "core/everstep"
PRIVATE = (
    "calling", "children", "choices", "coerce", "costs", "driver", "engine", "failures", "folding", "hints", "holding",
    "inspection", "invocation", "journal", "kernel/*", "lifecycle", "loop", "nesting", "past", "plain", "protocol_json",
    "record_json", "recording", "resuming", "scalars", "search", "service", "shapes", "signature", "starts",
    "staticcheck", "staticrules", "staticsource", "tokens", "transitions", "upkeep", "views", "waits", "writer",
    "stores/liveness", "stores/sqlite_file", "stores/sqlite_find",
    "http/application", "http/approve", "http/body", "http/brief", "http/feed", "http/openapi", "http/page",
    "http/paths", "http/problems", "http/strict",
    "testing/oracle", "testing/platform", "testing/plugin", "testing/virtual", "testing/world",
)  # fmt: skip
"""Modules of the core that are no way to a public name."""

SHRINK = "adapters/cloudflare/everstep_cloudflare/shrink.py"


def without_words(root: Path) -> Callable[[str], str]:
    """What takes docstrings and comments from a source, every statement on its line: a Worker's files are made by it,
    too. It is taken from the tree, for nothing of ours is installed where a wheel is built."""
    spec = spec_from_file_location("shrink", root / SHRINK)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    bare: Callable[[str], str] = module.without_words
    return bare


def private_modules(root: Path) -> list[Path]:
    """The files of the modules that lose their words."""
    return [path for name in PRIVATE for path in sorted((root / CORE).glob(f"{name}.py")) if path.name != "__init__.py"]


def pack(path: Path) -> None:
    """Deflate an archive as far as it goes; nothing else of it changes."""
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / path.name
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
            for info in old.infolist():
                new.writestr(info, old.read(info), zipfile.ZIP_DEFLATED, compresslevel=9)
        shutil.copyfile(packed, path)


class CustomBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory()
        root = Path(self.root)
        bare = without_words(root)
        for number, path in enumerate(private_modules(root)):
            made = Path(self._folder.name) / f"{number}.py"
            made.write_text(bare(path.read_text(encoding="utf-8")), encoding="utf-8")
            os.utime(made, (path.stat().st_mtime, path.stat().st_mtime))
            build_data["force_include"][str(made)] = path.relative_to(root / "core").as_posix()

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            pack(Path(artifact_path))
            self._folder.cleanup()
