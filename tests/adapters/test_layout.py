"""Every adapter has the files of the layout and its extras."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PLATFORMS = ("aws", "cloudflare", "gcp", "supabase")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_adapter_is_a_package_with_an_extra_and_a_readme(platform: str) -> None:
    folder = ROOT / "adapters" / platform
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert (folder / "README.md").is_file()
    assert (folder / f"everstep_{platform}" / "py.typed").is_file()
    assert platform in project["optional-dependencies"]
    assert f"test-{platform}" in project["optional-dependencies"]
