"""A template that is one module goes to every platform whose adapter is there, with the countdown's infrastructure."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.templates.test_templates import everstep
from tests.templates_by_path import TEMPLATES

ALONE = ["agent", "approval", "entity", "fanout", "report", "saga", "webhook"]
ENTRY = {
    "aws": "aws/function.py",
    "gcp": "gcp/main.py",
    "supabase": "supabase/main.py",
    "cloudflare": "cloudflare/src/entry.py",
}
PLATFORMS = [one for one in ENTRY if (TEMPLATES / "countdown" / one).is_dir()]


def test_the_list_says_where_a_template_can_go(tmp_path: Path) -> None:
    listed = {one["name"]: one for one in json.loads(everstep(tmp_path, "new", "--list", "--json").stdout)}

    assert [name for name in listed if set(PLATFORMS) < set(listed[name]["platforms"])] == sorted(
        [*ALONE, "chess", "countdown"]
    )
    assert listed["batch"]["platforms"] == ["local"], "its records are a file"
    assert "entries" not in listed


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_template_gets_infrastructure_under_its_own_name(tmp_path: Path, platform: str) -> None:
    for name in ALONE:
        folder = tmp_path / name
        done = everstep(tmp_path, "new", name, str(folder), "--platform", platform)
        assert done.returncode == 0, done.stderr
        own = {path.relative_to(TEMPLATES / "countdown") for path in (TEMPLATES / "countdown" / platform).rglob("*")}
        assert {path.relative_to(folder) for path in (folder / platform).rglob("*")} >= {
            path for path in own if "__pycache__" not in path.parts
        }
        assert not [one for one in ENTRY if one != platform and (folder / one).exists()]
        for path in (folder / platform).rglob("*"):
            if path.suffix in (".sh", ".toml", ".py"):
                text = path.read_text()
                assert not re.search(r"\bcountdown\b|Notifier|WORKFLOW|TEMPLATE", text), f"{path}: another's name"
            if path.suffix == ".sh" and (TEMPLATES / "countdown" / path.relative_to(folder)).stat().st_mode & 0o100:
                assert path.stat().st_mode & stat.S_IXUSR, f"{path} can be called"
        assert (folder / platform / "README.md").read_text().startswith(f"# {name} on ")


@pytest.mark.parametrize("name", ALONE)
def test_the_lambda_functions_module_has_a_handler(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    everstep(tmp_path, "new", name, str(folder), "--platform", "aws")
    code = (
        f"import sys; sys.path[:0] = [{str(folder)!r}, {str(folder / 'aws')!r}]\n"
        "import function\n"
        "assert callable(function.handler) and function.app.workflows\n"
    )
    variables = {
        "AWS_DEFAULT_REGION": "eu-central-1",
        "EVERSTEP_TABLE": "runs",
        "EVERSTEP_QUEUE": "https://q.example/1/q",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
