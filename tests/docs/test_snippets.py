"""What the documentation shows is what runs.

A block fenced as `python` is executed, alone, in an empty folder. `python continues` runs after the block before it
and in its namespace; `python norun` is a fragment, and must at least parse. `python of <file>` is the program of that
test file, which runs it: the pages of the gallery are made from those files, and are compared with them.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tools import gallery

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```python(?P<info>[^\n`]*)\n(?P<code>.*?)^```\s*$", re.MULTILINE | re.DOTALL)
TOP_LEVEL_AWAIT = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class Snippet(NamedTuple):
    place: str
    info: str
    code: str


def snippets(text: str, file: str) -> list[Snippet]:
    """The blocks of a document; one that continues carries the code of those before it."""
    found: list[Snippet] = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        info, code = match["info"].strip(), match["code"]
        if info == "continues":
            code = f"{found[-1].code}\n{code}"
        found.append(Snippet(f"{file}:{line}", info, code))
    return found


def documents() -> list[Path]:
    patterns = ("*.md", "docs/**/*.md", "templates/**/*.md", "adapters/*/README.md")
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


SNIPPETS = [
    snippet for path in documents() for snippet in snippets(path.read_text(), path.relative_to(ROOT).as_posix())
]


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Execute a block as a module of its own, as a reader who pastes it into a file would."""
    script = folder / "snippet.py"
    script.write_text(code)
    return subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, text=True, timeout=120)


@cache
def made_pages() -> list[gallery.Page]:
    return gallery.pages()


def unfinished() -> str:
    """What the snippets use and the package does not offer yet."""
    try:
        from everstep import App  # noqa: F401
        from everstep.testing import Simulation  # noqa: F401
    except ImportError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.place)
def test_snippet(snippet: Snippet, tmp_path: Path) -> None:
    if snippet.info == "norun":
        compile(snippet.code, snippet.place, "exec", flags=TOP_LEVEL_AWAIT)
        return
    if snippet.info.startswith("of "):
        assert snippet.code in {page.path: page.text for page in made_pages()}[ROOT / snippet.place.partition(":")[0]]
        return
    assert snippet.info in ("", "continues")
    if missing := unfinished():
        pytest.xfail(f"not offered yet: {missing}")

    done = run(snippet.code, tmp_path)

    assert done.returncode == 0, f"{snippet.place}\n{done.stdout}{done.stderr}"


def test_the_readme_has_an_example_that_runs() -> None:
    assert [one.info for one in SNIPPETS if one.place.startswith("README.md")] == ["", "continues"]


def test_blocks_are_found_with_their_line_and_continue_each_other() -> None:
    text = "# T\n\n```python\na = 1\n```\n\n```sh\nls\n```\n\n```python continues\nassert a == 1\n```\n"

    assert snippets(text, "t.md") == [
        Snippet("t.md:3", "", "a = 1\n"),
        Snippet("t.md:11", "continues", "a = 1\n\nassert a == 1\n"),
    ]


def test_a_block_that_fails_is_noticed(tmp_path: Path) -> None:
    done = run("assert 1 == 2, 'here'", tmp_path)

    assert done.returncode == 1
    assert "AssertionError: here" in done.stderr


LINK = re.compile(r"\[[^\]]*\]\((?!https?://|#)(?P<target>[^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    targets = LINK.findall(path.read_text())

    assert [target for target in targets if not (path.parent / target).exists()] == []
