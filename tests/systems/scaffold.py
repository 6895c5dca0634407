"""What the system tests share: a world outside the process that dies, scripted faults, and processes to kill.

An effect counts in the `World`, never in the workflow: a file that is appended to and synced before the step returns,
so that a SIGKILL at any later instant finds the effect there and the checkpoint missing. Faults follow a script by the
number of the execution, and a process that kills itself does so at a named moment, so that no test waits for one.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from everstep import App, Workflow, current_step

if TYPE_CHECKING:
    from everstep.testing import Report, Simulation

ROOT = Path(__file__).resolve().parents[2]


class Outage(Exception):
    """A scripted failure of something outside."""


class World:
    """Effects outside of every instance, and the script of what fails.

    Args:
        folder: where effects are kept; None keeps them in memory, for instances that are simulated.
        script: for a name, what happens at its 1st, 2nd, ... execution: `ok`, `fail` (before the effect), `late`
            (fails after the effect), `kill` (SIGKILL of this process after the effect), `kill-before`, or `kill-once`
            with the name of an effect (before its own, when that other one has happened). Past its end everything is
            `ok`. In a folder it is found again by the next process.
    """

    def __init__(self, folder: Path | str | None = None, script: Mapping[str, Sequence[str]] | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._memory: dict[str, list[dict[str, Any]]] = {"tries": [], "effects": []}
        self._counted: dict[str, Counter[str]] = {"tries": Counter(), "effects": Counter()}
        self._script = {name: list(acts) for name, acts in (script or {}).items()}
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = self.folder / "script.json"
            if script is not None:
                kept.write_text(json.dumps(self._script))
            elif kept.exists():
                self._script = json.loads(kept.read_text())

    def did(self, name: str, /, **detail: Any) -> int:
        """An effect happens; returns how often it has. Raises Outage, or does not return, where the script says so."""
        self._append("tries", {"what": name})
        nth = self.tries(name)
        script = self._script.get(name, [])
        act = script[nth - 1] if nth <= len(script) else "ok"
        if act == "kill-before":
            self._die()
        if act.startswith("kill-once "):
            while not self.count(act.removeprefix("kill-once ")):
                time.sleep(0.01)
            self._die()
        if act == "fail":
            raise Outage(f"{name} is out of order")
        self._append("effects", {"what": name, **detail})
        if act == "kill":
            self._die()
        if act == "late":
            raise Outage(f"the answer of {name} was lost")
        if act not in ("ok", "kill", "late"):
            raise ValueError(f"script of {name}: {act!r}")
        return self.count(name)

    def effects(self, name: str | None = None) -> list[dict[str, Any]]:
        """What happened, in order, with its detail and without its name where one is given."""
        if name is None:
            return self._read("effects")
        return [
            {key: value for key, value in one.items() if key != "what"}
            for one in self._read("effects")
            if one["what"] == name
        ]

    def order(self) -> list[str]:
        """The names of the effects in the order they happened."""
        return [one["what"] for one in self._read("effects")]

    def count(self, name: str) -> int:
        """How often an effect happened."""
        return self._count("effects")[name]

    def counts(self) -> Counter[str]:
        return self._count("effects")

    def tries(self, name: str) -> int:
        """How often a body ran, the runs that failed before the effect included."""
        return self._count("tries")[name]

    def _count(self, file: str) -> Counter[str]:
        if self.folder is None:
            return Counter(self._counted[file])
        return Counter(one["what"] for one in self._read(file))

    def _append(self, file: str, line: dict[str, Any]) -> None:
        if self.folder is None:
            self._memory[file].append(line)
            self._counted[file][line["what"]] += 1
            return
        handle = os.open(self.folder / file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, json.dumps(line).encode() + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)

    def _read(self, file: str) -> list[dict[str, Any]]:
        if self.folder is None:
            return list(self._memory[file])
        path = self.folder / file
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _die(self) -> None:
        if self.folder is None:
            raise ValueError("a world in memory dies with the process: give it a folder")
        os.kill(os.getpid(), signal.SIGKILL)


def did(name: str, /, **detail: Any) -> int:
    """`World.did` of the world that the App of the running step was given."""
    return current_step().dependency(World).did(name, **detail)


class Ledger:
    """Accounts in an SQLite file of their own; an operation's id is unique, so that posting it twice posts it once."""

    def __init__(self, path: Path | str, **opening: int) -> None:
        self.path = str(path)
        with self._open() as db:
            db.execute("CREATE TABLE IF NOT EXISTS entries (op TEXT PRIMARY KEY, account TEXT, cents INTEGER)")
            for account, cents in opening.items():
                db.execute("INSERT OR IGNORE INTO entries VALUES (?, ?, ?)", (f"open-{account}", account, cents))

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path)
        db.execute("PRAGMA synchronous=OFF")  # a killed process loses nothing by it, a power cut would
        return db

    def post(self, op: str, account: str, cents: int) -> bool:
        """Whether the row is new. Raises ValueError for an operation that exists with another content."""
        with self._open() as db:
            new = db.execute("INSERT OR IGNORE INTO entries VALUES (?, ?, ?)", (op, account, cents)).rowcount == 1
            stood = db.execute("SELECT account, cents FROM entries WHERE op = ?", (op,)).fetchone()
        if stood != (account, cents):
            raise ValueError(f"{op} exists as {stood}")
        return new

    def balance(self, account: str) -> int:
        with self._open() as db:
            return int(db.execute("SELECT sum(cents) FROM entries WHERE account = ?", (account,)).fetchone()[0] or 0)

    def rows(self) -> list[tuple[str, str, int]]:
        """Every entry but the opening ones, in the order they were posted."""
        with self._open() as db:
            found = db.execute("SELECT op, account, cents FROM entries WHERE op NOT LIKE 'open-%' ORDER BY rowid")
            return [(str(op), str(account), int(cents)) for op, account, cents in found]


class Ended(NamedTuple):
    """How a child process ended. `result` is the workflow's, None where it did not get there."""

    killed: bool
    result: Any
    output: str


def run_process(
    program: str,
    workflow: str,
    *args: Any,
    id: str,
    folder: Path,
    kill_at: tuple[str, int] | None = None,
    steps_per_invocation: int | None = None,
) -> Ended:
    """Run a workflow to its end in a process of its own, on `folder/store.db`, with the world in `folder`.

    Args:
        program: the module that has the App, as `tests.systems.test_01_hello_world`, or `module:name`. Where it has a
            function `prepare(folder)`, that is called first, to provide what else the steps need.
        kill_at: an event of the runtime (`acquired`, `step` before its body, `delivered` once it is recorded,
            `suspended`, ...) and its number, from 1: there the process is killed by SIGKILL.
    """
    run = {"workflow": workflow, "args": args, "id": id}
    return _process(program, folder, run=run, kill_at=kill_at, steps_per_invocation=steps_per_invocation)


def serve_process(
    program: str,
    *,
    folder: Path,
    until: tuple[str, int],
    kill_at: tuple[str, int] | None = None,
    concurrency: int = 16,
    member: str | None = None,
    threads: str = "auto",
) -> Ended:
    """Serve everything there is in `folder/store.db`, until a run has settled and an effect happened so often."""
    worker = {"concurrency": concurrency, "member": member, "threads": threads}
    return _process(program, folder, until=until, kill_at=kill_at, **worker)


def _process(program: str, folder: Path, **order: Any) -> Ended:
    done = subprocess.run(
        [sys.executable, "-m", "tests.systems.child", json.dumps({"program": program, "folder": str(folder), **order})],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = done.stdout + done.stderr
    if done.returncode == -signal.SIGKILL:
        return Ended(True, None, output)
    assert done.returncode == 0, output
    return Ended(False, json.loads(done.stdout.splitlines()[-1]), output)


def survives(
    app: App, workflow: Workflow[..., Any], *args: Any, result: Any, at_most: int = 2, **options: Any
) -> Report:
    """Crash, duplicate and delay a run at every possible point, in both modes of invocation and on both platforms.

    The result stays what it is undisturbed, and no step's body runs more than twice: the one that was under way at the
    disturbance, and nothing that was recorded. Returns the report, for what else a system promises.

    Args:
        at_most: the bound where a step also fails by itself, one more for each failure.
    """
    from everstep.testing import crash_everywhere

    if not options.get("single_writer", True):
        options.setdefault("modes", ("queue",))
    report = crash_everywhere(app, workflow, *args, **options)
    assert report.error is None
    assert report.result == result
    assert all(count <= at_most for count in report.executions.values()), str(report)
    return report


def kill_at(sim: Simulation, kind: str, number: int = 1, **detail: Any) -> None:
    """Kill whoever is at work at a named moment: the `number`th event of a kind from now on, with these details.

    `step` comes before a step's body, `delivered` once a completion is recorded, `suspended` once the run has let go.
    """
    from everstep.testing.world import Crashed, Event

    left = number

    def at(event: Event) -> None:
        nonlocal left
        if event.kind != kind or any(event.detail.get(name) != value for name, value in detail.items()):
            return
        left -= 1
        if left == 0:
            for instance in sim.world.instances:
                instance.crash()
            raise Crashed(event.who)

    sim.world.listeners.append(at)
