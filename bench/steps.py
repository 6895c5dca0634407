"""Steps per second on SQLite, against single-row commits of the same rows: same file, connection, settings, driver.

A slice is a run of steps from its start to its end, by the embedded runtime. The floor inserts the rows that those
steps leave behind, one autocommitted `INSERT` of its non-null columns each, with nothing asked and nothing checked.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path

from everstep import Runtime
from everstep.stores.sqlite import SqliteStore

from .figures import Figure, Scale, Stopwatch, in_turns, ratio
from .programs import app, steps

ROW = "steps per second on SQLite"
_COLUMNS = ("id", "branch", "kind", "state", "rev", "epoch", "n", "param", "value", "created_at", "settled_at")
_INSERT = f"INSERT INTO everstep_rows ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_NOW = 1_700_000_000_000
SLOW = 200.0
"""Microseconds of a floor commit from which on the budget at FULL applies."""


def floor(store: SqliteStore, id: str, count: int) -> float:
    """Microseconds of a raw commit of one step's row."""
    execute = store._cursor().execute
    with Stopwatch(count, cpu=False) as watch:
        for number in range(count):
            param = f'["charge",[{number},"card-17"]]'
            row = (f"{id}.{number}", id, "step", "resolved", 1, 1, number, param, str(number), _NOW, _NOW)
            execute(_INSERT, row)
    return watch.micros


async def run_steps(store: SqliteStore, id: str, count: int) -> float:
    """Microseconds of a step, of a run that does nothing else."""
    runtime = Runtime(app, store)
    with Stopwatch(count, cpu=False) as watch:
        handle = await runtime.run(steps, count, id=id)
    assert await handle.result() == count * (count - 1) // 2
    await runtime.stop()
    return watch.micros


def _compare(folder: Path, synchronous: str, count: int, rounds: int) -> tuple[float, float, float]:
    """Floor over ours, the floor's commit and our step, both in microseconds."""
    path = folder / f"{synchronous}-{count}.db"
    store = SqliteStore(path, synchronous=synchronous)
    times = in_turns(
        rounds,
        {
            "floor": lambda number: floor(store, f"{number:02}-floor", count),
            "steps": lambda number: asyncio.run(run_steps(store, f"{number:02}-steps", count)),
        },
    )
    asyncio.run(store.close())
    share = ratio(times["floor"], times["steps"])
    return share, statistics.median(times["floor"]), statistics.median(times["steps"])


def run(scale: Scale, where: str | None = None) -> list[Figure]:
    found = []
    with tempfile.TemporaryDirectory(dir=where) as folder:
        for synchronous, budget, counts in (
            ("full", 0.8, [scale.steps]),
            ("normal", 0.4, [scale.steps, 10 * scale.steps]),
        ):
            for count in counts:
                share, commit, step = _compare(Path(folder), synchronous, count, scale.rounds)
                note = f"{1e6 / step:,.0f} steps a second; {step:.0f} us a step, {commit:.0f} us a commit"
                applies = synchronous != "full" or commit >= SLOW
                found.append(
                    Figure(
                        ROW,
                        f"synchronous={synchronous.upper()}, a run of {count:,} steps",
                        share,
                        "of the floor",
                        budget,
                        least=True,
                        applies=applies,
                        note=note if applies else f"{note}: no slow disk, so no budget",
                        detail={"step": round(step, 1), "commit": round(commit, 1)},
                    )
                )
    return found
