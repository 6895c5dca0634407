"""Every template goes to every platform whose adapter is there: infrastructure stands once, with the countdown."""

from __future__ import annotations

import json
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from everstep.cli.loading import load_app
from everstep.ids import check_root
from tests.templates.test_templates import everstep
from tests.templates_by_path import TEMPLATES, made

ALONE = ["agent", "approval", "batch", "entity", "fanout", "report", "saga", "webhook"]
CARRIED = {"batch": ["app.py", "records.csv"], "chess": ["app.py", "players.py", "board"], "saga": ["app.py"]}
ENTRY = {
    "aws": "aws/function.py",
    "gcp": "gcp/main.py",
    "supabase": "supabase/main.py",
    "cloudflare": "cloudflare/src/entry.py",
}
PLATFORMS = [one for one in ENTRY if (TEMPLATES / "countdown" / one).is_dir()]


def test_the_list_says_where_a_template_can_go(tmp_path: Path) -> None:
    listed = {one["name"]: one for one in json.loads(everstep(tmp_path, "new", "--list", "--json").stdout)}

    assert [name for name in listed if set(PLATFORMS) < set(listed[name]["platforms"])] == sorted(listed)
    assert sorted(listed) == sorted([*ALONE, "chess", "countdown"])
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


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", ALONE)
def test_the_page_starts_a_run_that_the_workflow_takes(name: str, platform: str, tmp_path: Path) -> None:
    """It is what somebody types first after a deployment."""
    folder = made(name, tmp_path / name, platform)
    page = (folder / platform / "README.md").read_text()
    assert not re.search("EXAMPLE|WORKFLOW|TEMPLATE", page)
    bodies = [shlex.split(line)[-1] for line in page.splitlines() if " -d '" in line]
    bodies += [shlex.split(line)[1] for line in page.splitlines() if "--payload '" in line]
    if platform == "gcp":
        script = "URL=u TOKEN=t PROJECT=p; . gcp/function.sh; after_deploy"
        printed = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=True).stdout
        bodies.append(shlex.split(printed.partition("start one:")[2])[-1])
    assert len(bodies) == (2 if platform == "gcp" else 1)
    app = load_app(str(folder / "app.py"))
    for body in map(json.loads, bodies):
        workflow = body.get("workflow") or re.search(r"/workflows/(\w+)", page)[1]  # type: ignore[index]
        app.find(workflow).signature.coerce_args(body["args"], {})
        check_root(body["id"], "id")


@pytest.mark.parametrize(("name", "carried"), CARRIED.items())
def test_what_is_deployed_is_all_that_the_template_consists_of(name: str, carried: list[str], tmp_path: Path) -> None:
    words = " ".join(carried)
    for platform, script, line in (
        ("aws", "deploy.sh", f'files="{words}"'),
        ("gcp", "function.sh", f"FILES=({words} gcp/main.py gcp/requirements.txt)"),
        ("cloudflare", "vendor.sh", f'files="{words}"'),
    ):
        assert f"\n{line}" in (made(name, tmp_path / platform, platform) / platform / script).read_text()


def test_no_template_has_a_copy_of_anothers_file() -> None:
    seen: dict[bytes, Path] = {}
    for path in sorted(TEMPLATES.rglob("*")):
        if path.is_file() and not {"__pycache__", "python_modules", "build"} & {*path.parts}:
            assert (other := seen.setdefault(path.read_bytes(), path)) == path, f"{path} is {other}"


def test_packages_of_a_template_are_deployed_with_it(tmp_path: Path) -> None:
    packages = (made("chess", tmp_path / "chess", "gcp") / "gcp" / "requirements.txt").read_text().splitlines()
    assert [line.partition(">")[0] for line in packages] == ["everstep[gcp]", "chess"]


@pytest.mark.parametrize("name", [*ALONE, "chess"])
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
