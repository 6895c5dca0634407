"""System 32, a batch: fifty records in batches of ten; what is imported stays so. A large input goes by reference."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, TypedDict

import pytest

from everstep import App, Client, Codec, Context, DirectoryBlobs, PayloadTooLarge, Retry
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, serve_process, survives

app = App("batch", retry=Retry(attempts=3, first=1))

SIZE = 10


class Row(TypedDict):
    number: int
    text: str


class Imported(TypedDict):
    processed: int
    batches: int


@app.step
def load(batch: int, rows: list[Row]) -> int:
    did(f"batch {batch}", numbers=[row["number"] for row in rows])
    return len(rows)


@app.workflow
async def import_rows(ctx: Context, rows: list[Row]) -> Imported:
    batches = [rows[first : first + SIZE] for first in range(0, len(rows), SIZE)]
    done = [await ctx.run(load, number, batch) for number, batch in enumerate(batches)]
    return {"processed": sum(done), "batches": len(done)}


def records(count: int = 50, text: str = "") -> list[Row]:
    return [{"number": number, "text": text} for number in range(count)]


BATCHES = [f"batch {number}" for number in range(5)]
ONCE = dict.fromkeys(BATCHES, 1)
RESULT: Imported = {"processed": 50, "batches": 5}
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


@BOTH
def test_a_batch_that_fails_once_is_tried_again_alone(mode: Mode) -> None:
    world = app.provide(World(script={"batch 3": ["fail"]}))
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(import_rows, records())) == RESULT
    assert [world.tries(batch) for batch in BATCHES] == [1, 1, 1, 2, 1]
    assert [number for one in world.effects() for number in one["numbers"]] == list(range(50))


@BOTH
@pytest.mark.parametrize("steps", [None, 1])
def test_killed_after_batch_two_it_goes_on_with_batch_three(mode: Mode, steps: int | None) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode, steps_per_invocation=steps)
    kill_at(sim, "delivered", 3)

    assert sim.run(sim.start(import_rows, records())) == RESULT
    assert world.order() == BATCHES


def test_a_process_killed_after_batch_two_goes_on_with_batch_three(tmp_path: Path) -> None:
    world = World(tmp_path)
    order: dict[str, Any] = {"id": "b1", "folder": tmp_path}
    assert run_process(__name__, "import_rows", records(), **order, kill_at=("delivered", 3)).killed
    assert world.order() == BATCHES[:3]

    assert run_process(__name__, "import_rows", records(), **order).result == RESULT
    assert world.order() == BATCHES


LARGE = "0123456789" * 10_240  # fifty of them are five megabytes


def test_five_megabytes_go_by_reference_beside_the_store(tmp_path: Path) -> None:
    """The store holds an address; the text is in a folder, and it is read back from there by another process."""

    async def from_outside(start: bool) -> Any:
        async with Client.open(f"sqlite:///{tmp_path / 'store.db'}", app=app) as client:
            if start:
                await client.start(import_rows, records(text=LARGE), id="b1")
            return await client.handle("b1").view()

    world = World(tmp_path)
    asyncio.run(from_outside(True))
    assert serve_process(__name__, folder=tmp_path, until=("batch 4", 1), kill_at=("delivered", 3)).killed
    assert not serve_process(__name__, folder=tmp_path, until=("batch 4", 1)).killed

    assert asyncio.run(from_outside(False)).value == RESULT
    assert world.order() == BATCHES
    assert (tmp_path / "store.db").stat().st_size < 1_000_000
    assert sum(one.stat().st_size for one in (tmp_path / "store.db.blobs").rglob("*") if one.is_file()) > 5_000_000


@BOTH
def test_five_megabytes_on_a_store_of_small_records(mode: Mode, tmp_path: Path) -> None:
    small = App("small", codec=Codec(blobs=DirectoryBlobs(tmp_path), limit=4096))
    small.step(load)
    run = small.workflow(name="run")(import_rows.fn)
    world = small.provide(World())
    sim = Simulation(small, mode=mode)
    handle = sim.start(run, records(text=LARGE), id="b1")
    kill_at(sim, "delivered", 3)

    assert sim.run(handle) == RESULT
    assert world.order() == BATCHES
    assert max(len(cell) for row in sim.world.store._rows.values() for cell in row if isinstance(cell, str)) < 8192


def test_without_a_place_for_it_a_large_input_is_refused_by_name() -> None:
    sim = Simulation(app)

    with pytest.raises(PayloadTooLarge, match=r"arguments of import_rows\(\) has \d+ bytes"):
        sim.start(import_rows, records(text=LARGE))


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, import_rows, records(30), result={"processed": 30, "batches": 3})


def test_by_reference_it_survives_a_crash_at_every_point(tmp_path: Path) -> None:
    small = App("small", codec=Codec(blobs=DirectoryBlobs(tmp_path), limit=512))
    small.step(load)
    run = small.workflow(name="run")(import_rows.fn)
    small.provide(World())

    survives(small, run, records(20, "x" * 40), result={"processed": 20, "batches": 2})
