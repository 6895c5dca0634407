"""Every system has a program with its checks, and the gallery shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import gallery

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GALLERY = ROOT / "docs" / "systems.md"
FILES = gallery.files()


def test_every_system_has_its_file_and_every_file_its_system() -> None:
    assert sorted(FILES) == list(range(1, 55))
    assert all(path.is_file() for path in FILES.values())


@pytest.mark.parametrize("number", FILES)
def test_its_file_says_which_it_is_and_crashes_it_everywhere(number: int) -> None:
    text = FILES[number].read_text()

    assert re.match(rf'"""System {number}[,:] ', text), "the first line names the system"
    if number == gallery.TAB:
        assert "test_the_server_killed_at_every_request_of_the_worker" in text
    else:
        assert re.search(r"\b(survives|crash_everywhere)\(", text), "a crash at every point"
        assert not re.search(r"\b(modes|variants)=[(\[][\"']|steps_per_invocation=None\)", text), (
            "on every platform, in every way"
        )


@pytest.mark.parametrize("number", FILES)
def test_the_gallery_shows_it(number: int) -> None:
    rows = [line for line in GALLERY.read_text().splitlines() if line.startswith(f"| {number} |")]

    assert len(rows) == 1, f"one row of docs/systems.md begins with | {number} |"
    page = re.search(r"\(systems/(.*?\.md)\)", rows[0])
    assert page is not None
    text = (gallery.PAGES / page[1]).read_text()
    assert f"../../{FILES[number].relative_to(ROOT).as_posix()})" in text
    assert text.startswith(f"# {number}. ")
