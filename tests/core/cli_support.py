"""The command line in this process, and in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.components import requires_component

requires_component("click", hint="pip install -e '.[test]'")
requires_component("rich", hint="pip install -e '.[test]'")

from everstep.cli import main  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]

APP = """
import sys
from everstep import App, Context, Halted, Retry

app = App("shop")
other = 3

@app.step(retry=Retry(attempts=3, first=0.001))
def note(text: str) -> str:
    with open("notes.txt", "a") as file:
        file.write(text + "\\n")
    print("step says", text)
    return text.upper()

@app.step(retry=Retry(attempts=3, first=0.001))
def flaky(text: str) -> str:
    with open("tries.txt", "a") as file:
        file.write(text + "\\n")
    if len(open("tries.txt").readlines()) < 3:
        raise ConnectionError("try again")
    return text

@app.workflow
async def countdown(ctx: Context, n: int, pause: float = 0.0) -> str:
    for left in range(n, 0, -1):
        await ctx.run(note, str(left))
        await ctx.sleep(pause)
    return "liftoff"

@app.workflow
async def order(ctx: Context, id: str) -> str:
    await ctx.run(note, id)
    return "shipped" if await ctx.promise() else "dropped"

@app.workflow
async def echo(ctx: Context, *args: object, **kwargs: object) -> object:
    return [list(args), dict(kwargs)]

@app.workflow
async def broken(ctx: Context) -> None:
    raise ValueError("no luck")

@app.workflow
async def unlucky(ctx: Context) -> str:
    return await ctx.run(flaky, "x")
"""


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one line of JSON on stdout."""
        assert self.out.count("\n") == 1, self
        return json.loads(self.out)


class Cli:
    """Runs commands in a folder that holds `NAME.py`, under a module name no other test uses."""

    count = 0

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Cli.count += 1
        self.folder = folder
        self.module = f"shop{Cli.count}"
        self.app = f"{self.module}:app"
        self._capsys = capsys
        (folder / f"{self.module}.py").write_text(APP)

    def __call__(self, *arguments: str, code: int | None = 0) -> Done:
        """Run a command and assert its exit code."""
        self._capsys.readouterr()
        got = main(arguments)
        out, err = self._capsys.readouterr()
        done = Done(got, out, err)
        if code is not None:
            assert got == code, done
        return done

    def notes(self) -> list[str]:
        path = self.folder / "notes.txt"
        return path.read_text().split() if path.exists() else []

    def process(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start a command in a process of its own, with these environment variables."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("EVERSTEP")}
        return subprocess.Popen(
            [sys.executable, "-m", "everstep.cli", *arguments],
            cwd=self.folder,
            env={**environment, "PYTHONUNBUFFERED": "1", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def make_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("EVERSTEP_STORE", "EVERSTEP_TOKEN", "EVERSTEP_SECRET"):
        monkeypatch.delenv(name, raising=False)
    return Cli(tmp_path, capsys)
