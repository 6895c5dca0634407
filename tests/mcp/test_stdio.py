"""The standard streams, where no client is at the other end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.components import requires_component

requires_component("mcp", hint="pip install 'everstep[mcp]'")
pty = pytest.importorskip("pty", reason="this platform has no pseudo-terminals")


def test_a_person_at_a_terminal_is_told_what_this_waits_for(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from everstep import App\napp = App('desk')\n")
    keyboard, screen = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "everstep.cli", "mcp", "app:app"],
        stdin=screen,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        text=True,
    )
    try:
        assert child.stderr is not None
        assert "for a client that starts this" in child.stderr.readline()
    finally:
        child.kill()
        out, _ = child.communicate()
        os.close(keyboard)
        os.close(screen)
    assert out == "", "stdout is for the protocol"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name an App to offer, or --bash, or both"),
        (["app:nothing"], "has no attribute 'nothing'"),
        (["app:number"], "app:number is a int, neither an App nor Tools"),
    ],
)
def test_what_cannot_be_served_is_said_on_stderr(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "app.py").write_text("print('at import')\nnumber = 3\n")
    done = subprocess.run(
        [sys.executable, "-m", "everstep.cli", "mcp", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
