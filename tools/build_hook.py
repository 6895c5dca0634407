"""The wheel carries code, and the words its users read.

A module that nobody imports by name goes into the wheel without comments and docstrings; they are in the repository.
Every statement stays on its line, so a traceback points to the same place in both. What `help()` shows of the public
names stays readable, and so does the command line's help, which is made of docstrings. The archive is then deflated as
far as it goes.
"""

from __future__ import annotations

import ast
import io
import os
import shutil
import tempfile
import tokenize
import zipfile
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

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def bare(source: str) -> str:
    """A module without comments and docstrings, every statement on its line."""
    lines = [line.encode() for line in source.splitlines()]
    cuts: list[tuple[int, int, int, int, bytes]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED):
            for said in node.body:
                if (
                    isinstance(said, ast.Expr)
                    and isinstance(said.value, ast.Constant)
                    and type(said.value.value) is str
                ):
                    assert said.end_lineno is not None
                    assert said.end_col_offset is not None
                    stands_in = b"..." if len(node.body) == 1 and not isinstance(node, ast.Module) else b""
                    cuts.append((said.lineno, said.col_offset, said.end_lineno, said.end_col_offset, stands_in))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            cuts.append((row, len(token.line[:column].encode()), row, len(token.line.encode().rstrip()), b""))
    for row, column, end_row, end_column, stands_in in sorted(cuts, reverse=True):
        lines[row - 1] = lines[row - 1][:column] + stands_in + lines[end_row - 1][end_column:]
        lines[row:end_row] = [b""] * (end_row - row)
    return "".join(f"{line.decode().rstrip()}\n" for line in lines)


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
        for number, path in enumerate(private_modules(root)):
            made = Path(self._folder.name) / f"{number}.py"
            made.write_text(bare(path.read_text(encoding="utf-8")), encoding="utf-8")
            os.utime(made, (path.stat().st_mtime, path.stat().st_mtime))
            build_data["force_include"][str(made)] = path.relative_to(root / "core").as_posix()

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            pack(Path(artifact_path))
            self._folder.cleanup()
