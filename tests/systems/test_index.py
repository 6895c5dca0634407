"""Every system has a program with its checks, and the gallery shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GALLERY = HERE.parents[1] / "docs" / "systems.md"

OPEN = {3, 22, 26, 40, 41, 42}
"""Not there yet; none in the end."""

FILES = {int(path.name[5:7]): path for path in sorted(HERE.glob("test_[0-9][0-9]_*.py"))}


@pytest.mark.parametrize("number", sorted({*range(1, 55)} - OPEN))
def test_a_system_has_its_file(number: int) -> None:
    assert number in FILES


@pytest.mark.parametrize("number", FILES)
def test_its_file_says_which_it_is_and_crashes_it_everywhere(number: int) -> None:
    text = FILES[number].read_text()

    assert text.startswith(f'"""System {number}, '), "the first line names the system"
    assert re.search(r"\b(survives|crash_everywhere)\(", text), "a crash at every point"


@pytest.mark.parametrize("number", FILES)
def test_the_gallery_shows_it(number: int) -> None:
    rows = [line for line in GALLERY.read_text().splitlines() if line.startswith(f"| {number} |")]

    assert len(rows) == 1, f"one row of docs/systems.md begins with | {number} |"
    assert f"../tests/systems/{FILES[number].name})" in rows[0]
