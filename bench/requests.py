"""Store requests, counted: what a step, a suspension, a resume and a completed child of a fan-in ask of a store."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from everstep.ports import Store
from everstep.stores.memory import MemoryStore
from everstep.stores.sqlite import SqliteStore

from .figures import Figure, Scale
from .programs import approvals, countdown, fan, long
from .rig import Rig

ROW = "store requests, counted"


class Counts(NamedTuple):
    """Requests of one kind of store, the most of each that was seen.

    `iteration` and `queries` are the writes and the reads of one countdown iteration in a cold instance; `child` are
    the writes that complete a remote child, `settle` those that settle a promise of a fan-in; `rows` are the rows read
    for each child.
    """

    step: int
    suspension: int
    cold_resume: int
    warm_resume: int
    iteration: int
    queries: int
    child: int
    settle: int
    rows: float
    wakes: int


async def countdown_iterations(store: Store, *, cache: int) -> tuple[Rig, list[int], list[int]]:
    """A countdown of eight, and for each wake-up in its midst: the writes, and the queries."""
    rig = Rig(countdown.app, store, cache=cache)
    await rig.start(countdown, 8, id=f"c{cache}")
    await rig.work()
    rig.forget()
    writes, queries = [], []
    for _ in range(6):
        before = rig.store.counts.copy()
        await rig.sleep(600)
        asked = rig.store.counts - before
        writes.append(asked["commit"])
        queries.append(asked.total() - asked["commit"])
    return rig, writes, queries


async def fan_in(store: Store, children: int, *, backwards: bool = False) -> tuple[Rig, int, float]:
    """Remote children that are waited for by `gather`: the most writes that completed one, and rows read for each."""
    rig = Rig(fan.app, store)
    await rig.start(fan, children, id="f")
    await rig.deliver("f")
    rig.forget()
    most = 0
    waiting = [id for id in await rig.due() if id != "f"]
    for child in reversed(waiting) if backwards else waiting:
        before = rig.store.counts["commit"]
        await rig.deliver(child)
        most = max(most, rig.store.counts["commit"] - before - 1)  # one of them acquired the child
    read = rig.store.rows_read / children
    await rig.work()
    assert await rig.settled("f")
    return rig, most, read


async def settled_fan_in(store: Store, promises: int) -> tuple[Rig, int]:
    """Promises settled from outside: the most writes that one of them took."""
    rig = Rig(approvals.app, store)
    await rig.start(approvals, promises, id="a")
    await rig.deliver("a")
    rig.forget()
    most = 0
    for number in range(promises):
        before = rig.store.counts["commit"]
        await rig.client.resolve(f"a.{number + 1}", True)
        most = max(most, rig.store.counts["commit"] - before)
    await rig.work()
    assert await rig.settled("a")
    return rig, most


async def count(make: Callable[[], Store], children: int) -> Counts:
    """Run every program once on a fresh store each."""
    rig = Rig(long.app, make())
    await rig.start(long, 5, id="r")
    await rig.deliver("r")
    steps = rig.before["delivered"]
    assert len(steps) == 5
    cold, writes, queries = await countdown_iterations(make(), cache=0)
    warm, _, _ = await countdown_iterations(make(), cache=8)
    fan_rig, child, rows = await fan_in(make(), children)
    _, settle = await settled_fan_in(make(), children)
    return Counts(
        step=max([*steps, *cold.before["delivered"]]),
        suspension=max(cold.before["suspended"]),
        cold_resume=max(cold.before["acquired"]),
        warm_resume=max(warm.before["acquired"]),
        iteration=max(writes),
        queries=max(queries),
        child=child,
        settle=settle,
        rows=rows,
        wakes=fan_rig.acquired["f"],
    )


def run(scale: Scale) -> list[Figure]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        files = iter(Path(folder) / f"{number}.db" for number in range(100))
        stores: dict[str, Callable[[], Store]] = {
            "memory": MemoryStore,
            "SQLite": lambda: SqliteStore(next(files), synchronous="off"),
        }
        for name, make in stores.items():
            counts = asyncio.run(count(make, 100 if scale.rounds > 2 else 5))

            lines: tuple[tuple[str, float, str, float | None], ...] = (
                ("a step", counts.step, "requests", 1),
                ("a suspension", counts.suspension, "requests", 1),
                ("a resume, cold", counts.cold_resume, "requests", 2),
                ("a resume, warm", counts.warm_resume, "requests", 2),
                ("a countdown iteration", counts.iteration, "writes", 3),
                ("a countdown iteration, reading", counts.queries, "queries", 1),
                ("a completed child of a fan-in", counts.child, "writes", 2),
                ("a settled promise of a fan-in", counts.settle, "writes", 2),
                ("a completed child of a fan-in, reading", counts.rows, "rows", None),
            )
            found += [Figure(ROW, f"{what}, {name}", value, unit, budget) for what, value, unit, budget in lines]
    return found
