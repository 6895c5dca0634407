"""Dependencies point one way: user code -> everstep <- adapters, and the core runs on the standard library alone."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core"
ADAPTERS = ("aws", "gcp", "supabase", "cloudflare")

# What the newest interpreter has, so that the answer is the same on each.
STANDARD = sys.stdlib_module_names | {"annotationlib", "compression"}
# Behind an extra, and only ever imported inside the function that needs them.
LAZY_IN_CORE = {"cronsim", "cryptography", "pydantic"}
# The edges of the core that may use other libraries, and which.
EDGES = {
    "everstep/cli/": {"click", "rich", "starlette", "uvicorn"},
    "everstep/http/": {"starlette", "uvicorn"},
    "everstep/http/bearer.py": {"jwt"},
    "everstep/http/messages.py": {"httpx"},
    "everstep/mcp/": {"mcp", "mcp_types", "anyio", "pydantic", "pydantic_core", "starlette"},
    "everstep/models/": {"openai", "anthropic", "pydantic_ai", "pydantic_core"},
    "everstep/testing/": {"pytest", "hypothesis"},
}


class Import(NamedTuple):
    file: str
    line: int
    package: str
    lazy: bool


def imports(source: str, file: str) -> Iterator[Import]:
    """Every absolute import, with whether it waits for a call; what only a type checker reads costs nothing."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        match node:
            case ast.Import(names=names):
                yield from (Import(file, node.lineno, name.name.split(".")[0], lazy) for name in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield Import(file, node.lineno, module.split(".")[0], lazy)
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"), orelse=other):
                for child in other:
                    yield from walk(child, lazy)
                return
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                lazy = True
        for child in ast.iter_child_nodes(node):
            yield from walk(child, lazy)

    yield from walk(ast.parse(source, file), False)


def imports_below(folder: Path, relative_to: Path) -> list[Import]:
    return [
        one
        for path in sorted(folder.rglob("*.py"))
        for one in imports(path.read_text(), path.relative_to(relative_to).as_posix())
    ]


def allowed_in_core(one: Import) -> bool:
    if one.package == "everstep" or one.package in STANDARD:
        return True
    if one.lazy and one.package in LAZY_IN_CORE:
        return True
    return any(one.file.startswith(edge) and one.package in packages for edge, packages in EDGES.items())


def test_the_core_imports_the_standard_library_only() -> None:
    assert [one for one in imports_below(CORE / "everstep", CORE) if not allowed_in_core(one)] == []


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("import boto3", "everstep/driver.py"),
        ("def f():\n    import boto3", "everstep/driver.py"),
        ("import cronsim", "everstep/cron.py"),
        ("import click", "everstep/client.py"),
        ("import everstep_aws", "everstep/client.py"),
        ("import everstep_aws", "everstep/cli/commands.py"),
        ("try:\n    from boto3.session import Session\nexcept ImportError:\n    pass", "everstep/ports.py"),
    ],
)
def test_what_the_core_may_not_import_is_noticed(source: str, file: str) -> None:
    assert [one for one in imports(source, file) if not allowed_in_core(one)]


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("import json, asyncio.events", "everstep/driver.py"),
        ("from everstep.ports import Store", "everstep/driver.py"),
        ("def f():\n    from cronsim import CronSim", "everstep/cron.py"),
        ("import click", "everstep/cli/commands.py"),
        ("if TYPE_CHECKING:\n    import starlette", "everstep/client.py"),
    ],
)
def test_what_the_core_may_import_is_accepted(source: str, file: str) -> None:
    assert [one for one in imports(source, file) if not allowed_in_core(one)] == []


@pytest.mark.parametrize("name", ADAPTERS)
def test_no_adapter_imports_another(name: str) -> None:
    others = {f"everstep_{other}" for other in ADAPTERS if other != name}
    found = imports_below(ROOT / "adapters" / name / f"everstep_{name}", ROOT)

    assert [one for one in found if one.package in others] == []


def test_importing_everstep_loads_no_package_and_nothing_heavy() -> None:
    # -S leaves site-packages out, so that a third-party import would not even be found.
    code = (
        f"import sys, json; sys.path.insert(0, {str(CORE)!r}); import everstep; print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}

    assert loaded - STANDARD - {"everstep", "__main__"} == set()
    assert loaded & {"sqlite3", "http", "urllib", "multiprocessing", "unittest", "argparse"} == set()
