"""Every system has a program with its checks, and the gallery shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GALLERY = HERE.parents[1] / "docs" / "systems.md"

SYSTEMS = (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 25, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54)
"""Those that run on the embedded store alone."""

FILES = {int(path.name[5:7]): path for path in sorted(HERE.glob("test_[0-9][0-9]_*.py"))}


@pytest.mark.parametrize("number", SYSTEMS)
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
