"""Replay of recorded steps, loading included, against one coroutine that is fed the same values.

The floor is a coroutine with the same loop, whose `run(fn, *args)` makes one object and yields it; it is sent one value
after the other. "Decoding" adds `json.loads` of each value's stored text, which whoever replays from text must pay;
the file's own reading is not in the floor.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from everstep.engine import Body
from everstep.journal import read, unhurried_collector
from everstep.ports import Store
from everstep.promise import Kind
from everstep.rows import from_row
from everstep.stores.memory import MemoryStore
from everstep.stores.sqlite import SqliteStore

from .figures import Figure, Scale, Stopwatch, in_turns, ratio
from .programs import app, charge, long
from .rig import Rig

ROW = "replay of recorded steps, loading included"
_INSERT = f"INSERT INTO everstep_rows VALUES ({', '.join('?' * 17)})"


async def recorded(folder: Path, count: int, *, folded: bool) -> SqliteStore:
    """A file that holds a run of so many recorded steps, asleep."""
    made = MemoryStore()
    rig = Rig(app, made, fold_after=512 if folded else 10**9, cache=0)
    await rig.start(long, count, id="r")
    await rig.deliver("r")
    store = SqliteStore(folder / f"{count}-{folded}.db", synchronous="off")
    cursor = store._cursor()
    cursor.execute("BEGIN")
    cursor.executemany(_INSERT, sorted(await made.branch("r")))
    cursor.execute("COMMIT")
    return store


async def replay(store: Store, count: int) -> None:
    """What a cold instance does before it can go on."""
    rows = await store.branch("r")
    record = next(from_row(row) for row in rows if row.id == "r")
    assert record.task is not None
    journal = await read(record, rows, app.codec, 0)
    body = Body(
        app,
        app.info(long),
        "r",
        (count,),
        {},
        created_at=record.created_at,
        created=journal.created,
        armed=dict(record.task.timers),
    )
    with unhurried_collector():
        body.start(journal.history, journal.began_at or 0)
    assert body.delivered == count
    body.drop()


class _Given:
    def __await__(self) -> Generator[_Given, Any, Any]:
        return (yield self)


class _Floor:
    def run(self, fn: Any, *args: Any) -> _Given:
        return _Given()


async def _loop(ctx: _Floor, count: int) -> int:
    total = 0
    for number in range(count):
        total += await ctx.run(charge, number, "card-17")
    return total


def feed(texts: Sequence[str], values: Sequence[Any], *, decoding: bool) -> None:
    """The floor."""
    coroutine = _loop(_Floor(), len(values))
    with unhurried_collector():
        coroutine.send(None)
        try:
            if decoding:
                for text in texts:
                    coroutine.send(json.loads(text))
            else:
                for value in values:
                    coroutine.send(value)
        except StopIteration:
            return
    raise AssertionError("the floor did not end")


def _measure(store: SqliteStore, count: int, rounds: int) -> dict[str, list[float]]:
    texts = [str(number) for number in range(count)]
    values = [json.loads(text) for text in texts]
    repeats = max(1, 20_000 // count)  # a slice of a few milliseconds says more of what ran before it

    def subject(_: int) -> float:
        async def work() -> float:
            with Stopwatch(count * repeats, cpu=True) as watch:
                for _ in range(repeats):
                    await replay(store, count)
            return watch.micros

        return asyncio.run(work())

    def floor(decoding: bool) -> float:
        with Stopwatch(count * repeats, cpu=True) as watch:
            for _ in range(repeats):
                feed(texts, values, decoding=decoding)
        return watch.micros

    return in_turns(
        rounds,
        {"replay": subject, "decoding": lambda _: floor(True), "bare": lambda _: floor(False)},
    )


def run(scale: Scale) -> list[Figure]:
    found: list[Figure] = []
    per_step: dict[bool, dict[int, float]] = {False: {}, True: {}}
    with tempfile.TemporaryDirectory() as folder:
        for count in scale.histories:
            for folded in (True, False):
                store = asyncio.run(recorded(Path(folder), count, folded=folded))
                rows = asyncio.run(store.branch("r"))
                folds = sum(row.kind == Kind.FOLD for row in rows)
                times = _measure(store, count, scale.rounds)
                asyncio.run(store.close())
                per_step[folded][count] = min(times["replay"])
                found.append(
                    Figure(
                        ROW,
                        f"{count:,} steps, {'as a run leaves them' if folded else 'not folded'}",
                        ratio(times["replay"], times["decoding"]),
                        budget=3 if folded else None,
                        note=f"{ratio(times['replay'], times['bare']):.1f} times the floor without decoding; "
                        f"{statistics.median(times['replay']):.2f} us a step, {len(rows)} records, {folds} folds",
                        detail={name: [round(time, 3) for time in slices] for name, slices in times.items()},
                    )
                )
    longest, middle = scale.histories[-1], scale.histories[-3 if len(scale.histories) > 2 else 0]
    for folded, times_by in per_step.items():
        found.append(
            Figure(
                ROW,
                f"a step of {longest:,} against one of {middle:,}, {'as left' if folded else 'not folded'}",
                times_by[longest] / times_by[middle],
                budget=1.5 if folded else None,
                note="1 is linear",
            )
        )
    return found
