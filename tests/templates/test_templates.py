"""Every template is an application that runs as it is, in a folder of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.components import requires_component
from tests.templates_by_path import TEMPLATES

NAMES = sorted(path.parent.name for path in TEMPLATES.glob("*/app.py"))


def everstep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    requires_component("click")
    return subprocess.run(
        [sys.executable, "-m", "everstep.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def copied(name: str, tmp_path: Path) -> Path:
    """The template as `everstep new` leaves it: nothing of this repository around it."""
    return Path(shutil.copytree(TEMPLATES / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_begins_with_a_title_and_one_paragraph_that_says_what_it_is(name: str) -> None:
    title, _, rest = (TEMPLATES / name / "README.md").read_text().partition("\n\n")
    paragraph = rest.partition("\n\n")[0]

    assert title == f"# {name}"
    assert "\n" not in paragraph
    assert 20 < len(paragraph) <= 120
    assert "everstep run app:app" in rest


def test_the_countdown_runs_as_it_is(tmp_path: Path) -> None:
    folder = copied("countdown", tmp_path)

    done = everstep(folder, "run", "app:app", "countdown", "2", "0.01", "--id", "c1", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["value"] == "counted down from 2"
    assert (folder / "notifications.log").read_text().splitlines() == ["c1.1 2", "c1.3 1", "c1.5 Done"]
    again = everstep(folder, "run", "app:app", "countdown", "2", "0.01", "--id", "c1", "--json")
    assert json.loads(again.stdout)["value"] == "counted down from 2"
    assert len((folder / "notifications.log").read_text().splitlines()) == 3


def test_the_chess_game_runs_as_it_is_and_leaves_the_next_one_waiting(tmp_path: Path) -> None:
    requires_component("chess", hint="pip install chess")
    folder = copied("chess", tmp_path)

    done = everstep(folder, "run", "app:app", "chess", "1", "0.001", "6", "--id", "game", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["value"] == "1/2-1/2"
    assert json.loads((folder / "board.json").read_text())["ply"] == 6
    waiting = json.loads(everstep(folder, "ls", "--state", "pending", "--json").stdout)
    listed = waiting["promises"] if isinstance(waiting, dict) else waiting
    assert [one["id"][:6] for one in listed] == ["game~d"]


def test_the_rules_of_chess_are_a_dependency_of_the_template_alone() -> None:
    text = (TEMPLATES / "chess" / "README.md").read_text()

    assert "GPL-3" in text
    core = TEMPLATES.parent / "core"
    assert [path for path in core.rglob("*.py") if "import chess" in path.read_text()] == []
