"""A million sleeping workflows in one SQLite file: finding and firing the due ones must cost what it costs with 1,000.

One run is put to sleep for real; its record is copied under other ids with other alarms. Then time passes, and what
comes due is found and delivered, each to sleep again for a day.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

from everstep.rows import Row, from_row, to_row
from everstep.stores.memory import MemoryStore
from everstep.stores.sqlite import SqliteStore

from .figures import Figure, Scale, Stopwatch, in_turns, ratio
from .programs import app, nap
from .rig import Rig

ROW = "one million sleeping workflows"
FEW = 1_000
BATCH = 25
"""Runs that come due at the same instant, in both files."""
_INSERT = f"INSERT INTO everstep_rows VALUES ({', '.join('?' * 17)})"


async def _asleep() -> Row:
    rig = Rig(app, MemoryStore())
    await rig.start(nap, id="r")
    await rig.deliver("r")
    (row,) = await rig.store.branch("r")
    return row


def _copies(row: Row, count: int) -> Iterator[Row]:
    """So many sleepers, spread over ids; a batch of them wakes up every minute."""
    record = from_row(row)
    task = record.task
    assert task is not None
    assert row.due is not None
    for number in range(count):
        id = f"run-{number * 7_919 % count:08}"
        at = row.due + number // BATCH * 60_000
        sleeping = task._replace(tree=f"{id}.1", timers=((f"{id}.1", at),))
        yield to_row(record._replace(id=id, branch=id, task=sleeping))


class _File:
    """A file full of sleepers, and an instance that wakes them up."""

    def __init__(self, path: Path, row: Row, count: int) -> None:
        store = SqliteStore(path, synchronous="off")
        cursor = store._cursor()
        cursor.execute("PRAGMA wal_autocheckpoint = 100000")
        cursor.execute("BEGIN")
        cursor.executemany(_INSERT, _copies(row, count))
        cursor.execute("COMMIT")
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        cursor.execute("PRAGMA wal_autocheckpoint = 1000")
        self.rig = Rig(app, store, cache=0)
        assert row.due is not None
        self.rig.clock.set(row.due)
        self.found = 0.0
        self.times: list[float] = []

    async def wake(self) -> float:
        """Microseconds for each of the runs that are due now; then it is a minute later."""
        with Stopwatch(1, cpu=True) as finding:
            due = await self.rig.store.due(self.rig.clock.now(), 64)
        assert len(due) == BATCH, len(due)
        with Stopwatch(BATCH, cpu=True) as firing:
            for one in due:
                await self.rig.deliver(one.id)
        self.times.append(finding.micros)
        self.rig.clock.advance(60_000)
        return firing.micros + finding.micros / BATCH


def run(scale: Scale) -> list[Figure]:
    row = asyncio.run(_asleep())
    with tempfile.TemporaryDirectory() as folder:
        few = _File(Path(folder) / "few.db", row, FEW)
        many = _File(Path(folder) / "many.db", row, scale.sleepers)
        for file in (few, many):
            asyncio.run(file.wake())  # the first look at a file opens it
            file.times.clear()
        times = in_turns(
            min(3 * scale.rounds, FEW // BATCH - 2),
            {"few": lambda _: asyncio.run(few.wake()), "many": lambda _: asyncio.run(many.wake())},
        )
        finding = ratio(many.times, few.times)
        for file in (few, many):
            asyncio.run(file.rig.store.close())
    us = sorted(times["many"])[len(times["many"]) // 2]
    what = f"{scale.sleepers:,} against {FEW:,}"
    return [
        Figure(ROW, f"finding and firing the due ones, {what}", ratio(times["many"], times["few"]), budget=1.5,
               note=f"{us:.0f} us each"),
        Figure(ROW, f"finding alone, {what}", finding, note=f"{sorted(many.times)[len(many.times) // 2]:.0f} us"),
    ]  # fmt: skip
