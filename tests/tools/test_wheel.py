"""The wheel holds the core, the adapters and the templates, stays small, and imports without anything beside it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.components import requires_component

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600_000
"""Bytes. The budget of 250,000 was for the core; with the edges, the testing kit and four platforms in one wheel
`make bench` shows what it is. This holds the line."""

requires_component("hatchling", hint="pip install -e '.[test]'")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("everstep-*-py3-none-any.whl")
    return built


def test_it_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < LIMIT


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
