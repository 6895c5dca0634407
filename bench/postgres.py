"""Steps per second on Postgres, against raw autocommitted inserts of the same rows: `python -m bench.postgres`.

Same server (fsync on), same driver, same number of connections, slices in turn. A slice is a run of steps for each
connection, all at once, from start to end by one driver; the floor inserts the rows that those steps leave behind, each
by one prepared `INSERT` of its non-null columns, with nothing asked and nothing checked.
"""

from __future__ import annotations

import asyncio
import statistics
import sys

from everstep import Client
from everstep.clock import SystemClock
from everstep.driver import Driver
from everstep.ports import Wake
from everstep.wakers.local import LocalWaker
from everstep_supabase.store import PostgresStore
from tools.components import postgres

from .figures import FULL, TINY, Figure, Scale, Stopwatch, in_turns, ratio
from .programs import app, steps

ROW = "steps per second on Postgres"
BUDGET = 0.6
_COLUMNS = ("id", "branch", "kind", "state", "rev", "epoch", "n", "param", "value", "created_at", "settled_at")
_INSERT = (
    f"insert into everstep.rows ({', '.join(_COLUMNS)}) values ({', '.join(f'${n + 1}' for n in range(len(_COLUMNS)))})"
).encode()
_NOW = 1_700_000_000_000


async def _floor(dsn: str, tag: str, width: int, count: int) -> float:
    store = PostgresStore(f"{dsn}?pool={width}")
    connections = [await store.pool.connect() for _ in range(width)]

    async def insert(which: int) -> None:
        id, connection = f"{tag}-{which}", connections[which]
        for number in range(count):
            param = f'["charge",[{number},"card-17"]]'
            row = (f"{id}.{number}", id, "step", "resolved", 1, 1, number, param, str(number), _NOW, _NOW)
            await connection.execute(_INSERT, row)

    with Stopwatch(width * count, cpu=False) as watch:
        await asyncio.gather(*[insert(which) for which in range(width)])
    for connection in connections:
        await connection.close()
    return watch.micros


async def _steps(dsn: str, tag: str, width: int, count: int) -> float:
    store = PostgresStore(f"{dsn}?pool={width}")
    clock = SystemClock()
    client = Client(store, LocalWaker(), app=app, clock=clock)
    driver = Driver(app, store, LocalWaker(), clock, service=client.service)
    ids = [f"{tag}-{which}" for which in range(width)]
    handles = [await client.start(steps, count, id=id) for id in ids]
    with Stopwatch(width * count, cpu=False) as watch:
        await asyncio.gather(*[driver.deliver(Wake(id)) for id in ids])
    for handle in handles:
        assert await handle.result(0) == count * (count - 1) // 2
    await client.close()
    return watch.micros


def run(scale: Scale) -> list[Figure]:
    found = []
    count = max(20, scale.steps // 4)
    with postgres.Server() as server:
        asyncio.run(_steps(server.dsn, "warm", 1, 5))
        for width in (1, 8):
            times = in_turns(
                scale.rounds,
                {
                    "floor": lambda number, width=width: asyncio.run(  # type: ignore[misc]
                        _floor(server.dsn, f"f{width}-{number}", width, count)
                    ),
                    "steps": lambda number, width=width: asyncio.run(  # type: ignore[misc]
                        _steps(server.dsn, f"s{width}-{number}", width, count)
                    ),
                },
            )
            insert, step = statistics.median(times["floor"]), statistics.median(times["steps"])
            found.append(
                Figure(
                    ROW,
                    f"{width} connection{'s' if width > 1 else ''}",
                    ratio(times["floor"], times["steps"]),
                    "of the floor",
                    BUDGET,
                    least=True,
                    note=f"{1e6 / step:,.0f} steps a second, {1e6 / insert:,.0f} inserts",
                    detail={"step": round(step, 1), "insert": round(insert, 1)},
                )
            )
    return found


if __name__ == "__main__":
    figures = run(TINY if "--tiny" in sys.argv else FULL)
    for figure in figures:
        print(f"{figure.row}, {figure.name}: {figure.measured:.2f} {figure.unit} (at least {BUDGET}); {figure.note}")
