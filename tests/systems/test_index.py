"""Every system has a program with its checks, and the gallery shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GALLERY = HERE.parents[1] / "docs" / "systems.md"

ROOT = HERE.parents[1]
FILES = {int(path.name[5:7]): path for path in sorted(HERE.glob("test_[0-9][0-9]_*.py"))}
FILES[41] = ROOT / "tests" / "gateway" / "test_browser_worker.py"
"""A tab of a browser, which runs the official TypeScript SDK and no workflow of ours."""


def test_every_system_has_its_file_and_every_file_its_system() -> None:
    assert sorted(FILES) == list(range(1, 55))
    assert all(path.is_file() for path in FILES.values())


@pytest.mark.parametrize("number", FILES)
def test_its_file_says_which_it_is_and_crashes_it_everywhere(number: int) -> None:
    text = FILES[number].read_text()

    assert re.match(rf'"""System {number}[,:] ', text), "the first line names the system"
    if number != 41:
        assert re.search(r"\b(survives|crash_everywhere)\(", text), "a crash at every point"


@pytest.mark.parametrize("number", FILES)
def test_the_gallery_shows_it(number: int) -> None:
    rows = [line for line in GALLERY.read_text().splitlines() if line.startswith(f"| {number} |")]

    assert len(rows) == 1, f"one row of docs/systems.md begins with | {number} |"
    assert f"../{FILES[number].relative_to(ROOT).as_posix()})" in rows[0]
