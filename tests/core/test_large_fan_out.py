"""Children with large arguments: what one commit holds is bounded in rows and in bytes, as stores bound it."""

from __future__ import annotations

import asyncio

from everstep import App, Context
from everstep.testing import Simulation

app = App("large")


@app.workflow
async def measure(ctx: Context, text: str) -> int:
    return len(text)


@app.workflow
async def fan(ctx: Context, count: int, size: int) -> int:
    return sum(await asyncio.gather(*[ctx.rpc(measure, "é" * size) for _ in range(count)]))


def commits(count: int, size: int) -> list[int]:
    """The children in each commit that creates some."""
    sim = Simulation(app, single_writer=False, mode="queue")
    created: list[int] = []

    def note(caller: object, commit: object, before: dict[str, object]) -> None:
        puts = [put for put in commit.puts if put.row.kind == "rpc" and before[put.row.id] is None]  # type: ignore[attr-defined]
        if puts:
            created.append(len(puts))
            assert sum(len((put.row.param or "").encode()) for put in puts) <= 3_000_000

    sim.world.writers.append(note)
    handle = sim.start(fan, count, size, id="f")
    assert sim.run(handle) == count * size
    return created


def test_small_children_are_created_fifty_to_a_commit() -> None:
    assert commits(120, 10) == [50, 50, 20]


def test_large_ones_are_created_as_many_as_a_store_takes() -> None:
    assert commits(30, 120_000) == [12, 12, 6]
