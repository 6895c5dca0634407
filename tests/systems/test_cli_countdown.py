"""From the command line: a countdown killed by SIGKILL at any point and started again finishes as if it never died."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.components import requires_component
from tests.templates_by_path import TEMPLATES

requires_component("click")

WANTED = ["5", "4", "3", "2", "1", "Done"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "everstep.cli", *arguments]


def sent(folder: Path) -> list[tuple[str, str]]:
    log = folder / "notifications.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def recorded(folder: Path) -> set[str]:
    """The notifications in the record; empty before there is one."""
    done = subprocess.run(
        command("tree", "c1", "--json"), cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        return set()
    tree = json.loads(done.stdout)
    return {one["id"] for one in tree["children"] if one["kind"] == "step" and one["state"] == "resolved"}


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_points_it_finishes_with_each_recorded_notification_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    folder = Path(shutil.copytree(TEMPLATES / "countdown", tmp_path / "countdown"))
    run = command("run", "app:app", "countdown", "5", "0.05", "--id", "c1")
    repeatable: Counter[str] = Counter()
    for _ in range(4):
        before = len(sent(folder))
        process = subprocess.Popen(run, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        enough = before + chance.randint(0, 2)
        while process.poll() is None and len(sent(folder)) < enough:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.06))
        process.kill()
        process.wait()
        known = recorded(folder)
        repeatable.update({id for id, _ in sent(folder)[before:] if id not in known})

    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    assert "counted down from 5" in done.stdout
    assert list(dict(sent(folder)).values()) == WANTED
    times = Counter(id for id, _ in sent(folder))
    assert {id: count - 1 for id, count in times.items() if count > 1} == dict(repeatable)
    assert recorded(folder) == set(times)
