"""A new adapter is a folder with its package and README, an extra, and a README row; this fails when one is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ADAPTERS = sorted(path.name for path in (ROOT / "adapters").iterdir() if path.is_dir() and path.name != "__pycache__")


def missing_parts(name: str) -> list[str]:
    package = f"everstep_{name}"
    folder = ROOT / "adapters" / name
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    parts = {
        "README.md": (folder / "README.md").is_file(),
        "package": (folder / package / "__init__.py").is_file(),
        "py.typed": (folder / package / "py.typed").is_file(),
        "extra": name in PYPROJECT["project"]["optional-dependencies"],
        "wheel": f"adapters/{name}/{package}" in wheel["only-include"]
        and wheel["sources"].get(f"adapters/{name}") == "",
        "editable": f"adapters/{name}" in wheel["dev-mode-dirs"],
        "import contract": package in PYPROJECT["tool"]["importlinter"]["root_packages"]
        and all(
            package in (contract.get("forbidden_modules") or contract.get("modules") or ())
            for contract in PYPROJECT["tool"]["importlinter"]["contracts"]
            if "adapter" in contract["name"]
        ),
        "README row": re.search(rf"^\|.*\(adapters/{name}/README\.md\).*\|$", (ROOT / "README.md").read_text(), re.M)
        is not None,
    }
    return [part for part, present in parts.items() if not present]


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_has_all_its_parts(name: str) -> None:
    assert missing_parts(name) == []


def test_an_adapter_that_does_not_exist_lacks_every_part() -> None:
    assert missing_parts("nowhere") == [
        "README.md", "package", "py.typed", "extra", "wheel", "editable", "import contract", "README row",
    ]  # fmt: skip


def test_the_four_platforms_have_an_adapter_each() -> None:
    assert ADAPTERS == ["aws", "cloudflare", "gcp", "supabase"]


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_stub_says_so_and_offers_nothing(name: str) -> None:
    module = importlib.import_module(f"everstep_{name}")
    planned = "not implemented yet" in (ROOT / "adapters" / name / "README.md").read_text()

    assert module.__doc__
    assert (module.__all__ == []) == planned


def test_every_platform_extra_can_serve_schedules() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]

    assert [name for name in ADAPTERS if not any(one.startswith("cronsim") for one in extras[name])] == []


def test_the_distribution_itself_depends_on_nothing() -> None:
    required = importlib.metadata.requires("everstep") or []

    assert PYPROJECT["project"]["dependencies"] == []
    assert [one for one in required if "extra ==" not in one] == []


def test_gpl_packages_stay_out_of_what_users_install() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]

    assert [name for name, packages in extras.items() if any(p.startswith("chess") for p in packages)] == ["test-core"]


def test_the_version_has_one_source() -> None:
    everstep = importlib.import_module("everstep")
    version = PYPROJECT["project"]["version"]

    assert importlib.metadata.version("everstep") == version
    assert getattr(everstep, "__version__", version) == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_layers_of_the_architecture_are_those_of_the_contract() -> None:
    (contract,) = [one for one in PYPROJECT["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    section = (
        (ROOT / "ARCHITECTURE.md").read_text().partition("## The core, from the top down")[2].partition("\n## ")[0]
    )
    rows = re.findall(r"^\|[^|]+\|[^|]+\|([^|]+)\|$", section, re.M)[2:]
    assert [re.findall(r"`(\w+)`", row) for row in rows] == [layer.split(" : ") for layer in contract["layers"]]
