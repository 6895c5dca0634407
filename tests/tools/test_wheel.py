"""The wheel holds the core, the adapters and the templates, stays small, and imports without anything beside it."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bench.imports import CORE, shares
from tests.components import requires_component

ROOT = Path(__file__).resolve().parents[2]
WHOLE = 600_000
"""Bytes. The core has a budget; extras, platforms and templates have none, but nothing large may slip in with them."""

requires_component("hatchling", hint="pip install -e '.[test]'")

from tools.build_hook import PRIVATE, private_modules  # noqa: E402  # it needs hatchling


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("everstep-*-py3-none-any.whl")
    return built


def test_the_core_is_small(wheel: Path) -> None:
    """What needs no extra; adapters, command line, HTTP and templates are measured and not bounded."""
    assert shares(wheel)["the core"] < CORE
    assert wheel.stat().st_size < WHOLE


def without_docstrings(source: str) -> str:
    """The code of a module, with the line of each statement."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [one for one in body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
    for node in ast.walk(tree):
        # Columns within a line that ended in a comment or began with a docstring may differ, and the end of a body.
        for name in ("col_offset", "end_col_offset", "end_lineno"):
            if hasattr(node, name):
                delattr(node, name)
    return ast.dump(tree, include_attributes=True)


def test_its_modules_are_those_of_the_tree_line_by_line(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    bare = {path.relative_to(ROOT / "core").as_posix() for path in private_modules(ROOT)}
    assert len(bare) > len(PRIVATE)
    for path in sorted((ROOT / "core" / "everstep").rglob("*.py")):
        name = path.relative_to(ROOT / "core").as_posix()
        shipped, ours = archive.read(name).decode(), path.read_text(encoding="utf-8")
        if name in bare:
            assert without_docstrings(shipped) == without_docstrings(ours), name
            assert not ast.get_docstring(ast.parse(shipped))
        else:
            assert shipped == ours


def test_every_private_module_is_one(wheel: Path) -> None:
    assert {name for name in PRIVATE if not list((ROOT / "core" / "everstep").glob(f"{name}.py"))} == set()


def test_what_help_shows_of_a_public_name_is_in_the_wheel(wheel: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(wheel)!r})
import everstep, everstep.testing, everstep.testing.conformance, everstep.ports, everstep.promise, inspect
for module in (everstep, everstep.testing, everstep.testing.conformance, everstep.ports):
    assert module.__doc__, module
    for name in getattr(module, "__all__", ()):
        found = getattr(module, name)
        assert found.__doc__, name
        assert found.__module__.startswith("everstep") and str({str(wheel)!r}) in inspect.getfile(found)
for method in (everstep.App.workflow, everstep.Context.run, everstep.Context.sleep, everstep.Client.start,
               everstep.testing.Simulation.advance, everstep.ports.Store.commit, everstep.promise.Record):
    assert method.__doc__, method
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_it_holds_what_is_ours_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}

    assert tops == {"everstep", "everstep_aws", "everstep_gcp", "everstep_supabase", "everstep_cloudflare"}
    assert {"everstep/__init__.py", "everstep/py.typed", "everstep/_templates/README.md"} <= names
    assert {f"{top}/py.typed" for top in tops} <= names
    assert [name for name in names if name.endswith((".pyc", ".db", ".db-wal", ".db-shm"))] == []


def test_it_holds_every_module_of_the_tree(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {path.relative_to(ROOT / "core").as_posix() for path in (ROOT / "core" / "everstep").rglob("*.py")}

    assert ours - names == set()


def test_it_imports_with_nothing_else_installed(wheel: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(wheel)!r}); import everstep, everstep_aws; print(everstep.__file__)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(wheel))


def test_its_metadata_names_the_commands_and_no_dependency(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (entries,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    required = [line for line in archive.read(metadata).decode().splitlines() if line.startswith("Requires-Dist:")]

    assert "everstep = everstep.cli:main" in archive.read(entries).decode()
    assert "everstep = everstep.testing.plugin" in archive.read(entries).decode()
    assert [line for line in required if "extra ==" not in line] == []
