"""`ctx.run`, `rpc`, `options` and `start` are typed: mypy --strict and pyright infer results, and reject what is wrong.

`inferred.py` says on each line what is to be inferred, `rejected.py` marks each line that must be an error. Both tools
read copies in a folder of their own, against the package as a user would import it.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.components import requires_component

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
Found = tuple[dict[int, str], dict[int, str]]


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(file: Path) -> Found:
    """Revealed types and errors, by line."""
    requires_component("mypy", hint="pip install -e '.[lint]'")
    options = ("--strict", "--no-error-summary", "--hide-error-context", "--no-pretty", "--config-file=", "--cache-dir")
    program = (sys.executable, "-m", "mypy", "--python-version", "3.11")
    (file.parent / "mypy.ini").write_text("[mypy]\n")
    command = (*program, *options, str(file.parent / "cache"), file.name)
    revealed: dict[int, str] = {}
    errors: dict[int, str] = {}
    for line in run(*command, cwd=file.parent).splitlines():
        match = re.fullmatch(rf"{re.escape(file.name)}:(\d+): (error|note): (.*)", line)
        assert match is not None, line
        if match[2] == "error":
            errors.setdefault(int(match[1]), match[3])
        elif match[3].startswith("Revealed type is "):
            revealed[int(match[1])] = match[3].removeprefix("Revealed type is ").strip('"')
    return revealed, errors


def pyright(file: Path) -> Found:
    """Revealed types and errors, by line."""
    requires_component("pyright", hint="pip install -e '.[lint]'")
    (file.parent / "pyrightconfig.json").write_text(
        json.dumps({"pythonVersion": "3.11", "typeCheckingMode": "standard", "extraPaths": [str(ROOT / "core")]})
    )
    command = (sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, file.name)
    revealed: dict[int, str] = {}
    errors: dict[int, str] = {}
    for one in json.loads(run(*command, cwd=file.parent))["generalDiagnostics"]:
        line = one["range"]["start"]["line"] + 1
        if one["severity"] == "error":
            errors.setdefault(line, one["message"])
        elif (match := re.match(r'Type of ".*" is "(.*)"$', one["message"], re.DOTALL)) is not None:
            revealed[line] = match[1]
    return revealed, errors


def unqualified(type: str) -> str:
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", type)


TOOLS = pytest.mark.parametrize("tool", [mypy, pyright], ids=lambda tool: tool.__name__)


@TOOLS
def test_results_are_inferred(tool: Callable[[Path], Found], tmp_path: Path) -> None:
    file = Path(shutil.copy(HERE / "inferred.py", tmp_path))
    wanted = {
        number: line.rpartition("  # ")[2]
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if "reveal_type(" in line
    }

    revealed, errors = tool(file)

    assert errors == {}
    assert {number: unqualified(type) for number, type in revealed.items()} == wanted
    assert len(wanted) > 40


@TOOLS
def test_wrong_arguments_are_rejected(tool: Callable[[Path], Found], tmp_path: Path) -> None:
    file = Path(shutil.copy(HERE / "rejected.py", tmp_path))
    lines = file.read_text().splitlines()
    wanted = {number: line.strip() for number, line in enumerate(lines, 1) if line.endswith("  # !")}

    _, errors = tool(file)

    assert {number: lines[number - 1].strip() for number in errors} == wanted
    assert len(wanted) > 40


def test_the_package_says_that_it_is_typed() -> None:
    found = importlib.util.find_spec("everstep")
    assert found is not None
    assert found.origin is not None
    assert (Path(found.origin).parent / "py.typed").is_file()
