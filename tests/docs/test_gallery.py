"""Every command on the pages of the systems is given as it stands there, with the program of the page in a file.

In this process where that is possible: a hundred interpreters take longer to start than the commands to run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.components import requires_component
from tools import gallery

requires_component("click", hint="pip install -e '.[test]'")
requires_component("rich", hint="pip install -e '.[test]'")

from everstep.cli import main  # noqa: E402

PAGES = sorted(gallery.PAGES.glob("*.md"))
NEEDS = {20: "flask", 37: "chess", 51: "mcp", 52: "mcp", 53: "mcp", 54: "mcp"}


class Shown:
    """What a page shows."""

    def __init__(self, page: Path) -> None:
        text = page.read_text()
        self.number = int(page.name[:2])
        code = re.search(r"^```python of \S+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        file = re.search(r"the program in `(\w+\.py)`", text)
        commands = re.search(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        assert commands is not None
        self.code = code[1] if code is not None else ""
        self.file = file[1] if file is not None else None
        self.commands = commands[1].splitlines()


@contextmanager
def beside(words: list[str], folder: Path) -> Iterator[None]:
    """A command that goes on while the others are given."""
    child = subprocess.Popen(
        [sys.executable, "-m", "everstep.cli", *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        child.kill()
        child.wait()


def give(commands: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not commands:
        return
    line, rest = commands[0], commands[1:]
    expected = 3 if "exit code 3" in line else 0
    words = shlex.split(line, comments=True)
    match words:
        case ["cd", to]:
            folder = folder / to
            monkeypatch.chdir(folder)
        case ["python", "-m", "pytest", file]:
            assert (gallery.ROOT / file).is_file(), "it is among the tests"
        case ["everstep", *words, "&"]:
            with beside(words, folder):
                give(rest, folder, monkeypatch)
            return
        case ["everstep", *words, "<", "/dev/null"]:
            command = [sys.executable, "-m", "everstep.cli", *words]
            subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, check=True, timeout=60, capture_output=True)
        case ["everstep", *words]:
            assert main(words) == expected, line
        case _:
            raise AssertionError(line)
    give(rest, folder, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_commands_do_what_they_say(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown(page)
    if shown.number in NEEDS:
        requires_component(NEEDS[shown.number])
    known = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in os.environ if name.startswith("EVERSTEP_")]:
        monkeypatch.delenv(name)
    if shown.file is not None:
        (tmp_path / shown.file).write_text(shown.code)

    try:
        give(shown.commands, tmp_path, monkeypatch)
    finally:
        for name in set(sys.modules) - known:
            if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def test_there_is_a_page_for_each_system_and_each_is_what_its_file_says() -> None:
    assert [int(page.name[:2]) for page in PAGES] == list(range(1, 55))
    assert [page.path for page in gallery.pages() if page.path.read_text() != page.text] == []


def test_a_page_that_was_changed_by_hand_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in PAGES:
        (tmp_path / path.name).write_text(path.read_text())
    pages = [page._replace(path=tmp_path / page.path.name) for page in gallery.pages()]
    monkeypatch.setattr(gallery, "pages", lambda: pages)
    monkeypatch.setattr(gallery, "PAGES", tmp_path)
    monkeypatch.setattr(gallery, "ROOT", tmp_path)
    assert gallery.main(["--check"]) == 0
    (tmp_path / "01-hello-world.md").write_text("")
    assert gallery.main(["--check"]) == 1
