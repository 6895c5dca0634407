"""System 11, a periodic function: a cron is registered once, and each tick is a run of its own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from everstep import App, Client, Conflict, Context, NotFound
from everstep.clock import VirtualClock, to_milliseconds
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, serve_process, survives

app = App("cron")


@app.step
async def report(region: str) -> str:
    did("begun")
    await asyncio.sleep(10)  # a slow query
    did("report", region=region)
    return f"report on {region}"


@app.workflow
async def nightly(ctx: Context, region: str) -> str:
    return await ctx.run(report, region)


def scheduled(mode: Mode = "rows") -> tuple[Simulation, World]:
    """On the minute, with a schedule that ticks every minute."""
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    sim.advance(milliseconds=-sim.now_ms % 60_000)
    sim.schedule("nightly", "* * * * *", nightly, "sales")
    return sim, world


def ticks(sim: Simulation) -> list[str]:
    return [id for id, record in sim.records().items() if record.task is not None]


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_five_minutes_make_five_runs_each_executed_once(mode: Mode) -> None:
    sim, world = scheduled(mode)
    began = sim.now_ms

    sim.advance(minutes=5, seconds=30)

    assert ticks(sim) == [f"nightly.{began + minute * 60_000}" for minute in range(1, 6)]
    assert {sim.handle(id).result() for id in ticks(sim)} == {"report on sales"}
    assert world.count("report") == world.count("begun") == 5


def test_a_tick_delivered_twice_is_executed_once() -> None:
    sim, world = scheduled()
    sim.advance(minutes=1)
    (tick,) = ticks(sim)

    sim.redeliver(tick)
    sim.advance(seconds=5)
    sim.redeliver(tick)
    sim.advance(seconds=20)
    sim.redeliver(tick)

    assert sim.handle(tick).result() == "report on sales"
    assert world.count("begun") == world.count("report") == 1


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_a_tick_whose_instance_dies_finishes(mode: Mode) -> None:
    sim, world = scheduled(mode)
    sim.advance(minutes=1, seconds=5)
    (tick,) = ticks(sim)
    sim.kill()
    assert (world.count("begun"), world.count("report")) == (1, 0)

    sim.advance(minutes=4, seconds=20)

    assert sim.handle(tick).result() == "report on sales"
    assert world.count("begun") == world.count("report") + 1, "only the one that was under way ran twice"


def test_a_schedule_that_exists_stays_one_and_a_different_one_is_refused() -> None:
    sim, world = scheduled()

    sim.schedule("nightly", "* * * * *", nightly, "sales")
    with pytest.raises(Conflict, match="'nightly' already exists"):
        sim.schedule("nightly", "*/2 * * * *", nightly, "sales")

    assert [one["id"] for one in sim.call(lambda client: client.schedules())] == ["nightly"]
    sim.advance(minutes=3, seconds=30)
    assert world.count("report") == 3


def test_a_schedule_that_is_removed_ticks_no_more() -> None:
    sim, world = scheduled()
    sim.advance(minutes=2, seconds=30)

    sim.unschedule("nightly")
    sim.advance(days=1)

    assert world.count("report") == 2
    with pytest.raises(NotFound):
        sim.unschedule("nightly")


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_ticks_nobody_was_there_for_run_later(mode: Mode) -> None:
    sim, world = scheduled(mode)
    began = sim.now_ms

    sim.world.clock.advance(3 * 60_000 + 30_000)  # nobody is called in these minutes
    sim.advance(seconds=29)

    assert ticks(sim) == [f"nightly.{began + minute * 60_000}" for minute in (1, 2, 3)]
    assert world.count("report") == 3


def test_a_process_killed_in_a_tick_leaves_it_to_the_next(tmp_path: Path) -> None:
    world = World(tmp_path, {"begun": ["ok", "kill"]})
    year = asyncio.run(_schedule_years_ago(tmp_path))

    first = serve_process(f"{__name__}:yearly", folder=tmp_path, until=("census", 3))
    assert first.killed
    assert serve_process(f"{__name__}:yearly", folder=tmp_path, until=("census", 3)).killed is False

    assert sorted(one["tick"] for one in world.effects("census")) == [
        f"census.{_new_year(one)}" for one in (year - 2, year - 1, year)
    ]
    assert world.count("begun") == 4, "the one that was under way ran twice"


yearly = App("cron-yearly")


@yearly.step
def count_heads(tick: str) -> None:
    did("begun")
    did("census", tick=tick)


@yearly.workflow
async def census(ctx: Context) -> None:
    await ctx.run(count_heads, ctx.id)


def _new_year(year: int) -> int:
    return to_milliseconds(datetime(year, 1, 1, tzinfo=UTC))


async def _schedule_years_ago(folder: Path) -> int:
    """A schedule that nobody has looked at for three New Years; returns the year it is."""
    year = datetime.now(UTC).year
    clock = VirtualClock(_new_year(year - 2) - 1000)
    async with Client.open(f"sqlite:///{folder / 'store.db'}", app=yearly, clock=clock) as client:
        await client.schedule("census", "0 0 1 1 *", census)
    return year


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, nightly, "sales", result="report on sales")
