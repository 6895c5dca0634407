"""System 2, durable sleep: a workflow waits for seconds or for years, and no process is held open for it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from everstep import App, Client, Context
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import run_process, survives

app = App("sleep")


@app.workflow
async def sleeper(ctx: Context, seconds: float) -> str:
    await ctx.sleep(seconds)
    return f"slept {seconds:.0f} s"


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_nobody_is_called_while_it_sleeps_even_if_the_only_instance_dies(mode: Mode) -> None:
    sim = Simulation(app, mode=mode)
    handle = sim.start(sleeper, 5)
    sim.run_until_idle()
    sim.kill()

    sim.advance(seconds=4.999)
    assert (handle.status(), handle.cost().invocations, handle.cost().wakeups["delivered"]) == ("pending", 1, 1)

    sim.advance(milliseconds=1)
    assert handle.result() == "slept 5 s"
    assert (handle.cost().invocations, handle.cost().wakeups["delivered"]) == (2, 2)


@pytest.mark.parametrize("mode", ["rows", "queue"])
@pytest.mark.parametrize("killed", [False, True])
def test_three_years_cost_exactly_one_wake_up(mode: Mode, killed: bool) -> None:
    sim = Simulation(app, mode=mode)
    handle = sim.start(sleeper, timedelta(days=3 * 365).total_seconds())
    sim.run_until_idle()
    if killed:
        sim.kill()
    before = handle.cost().wakeups["delivered"]

    sim.advance(days=3 * 365)

    assert handle.result() == "slept 94608000 s"
    assert handle.cost().wakeups["delivered"] - before == 1


@pytest.mark.parametrize("mode", ["rows", "queue"])
@pytest.mark.parametrize("cold", [False, True])
def test_an_early_and_a_repeated_message_change_nothing(mode: Mode, cold: bool) -> None:
    sim = Simulation(app, mode=mode)
    handle = sim.start(sleeper, 60)
    sim.run_until_idle()
    deadline = sim.now_ms + 60_000
    if cold:
        sim.cold()

    for _ in range(2):
        sim.redeliver(handle.id)
    sim.advance(seconds=59)
    sim.redeliver(handle.id)
    assert (handle.status(), handle.cost().invocations) == ("pending", 1)

    sim.advance(seconds=1)
    settled = handle.record().settled_at
    for _ in range(2):
        sim.redeliver(handle.id)
    sim.advance(days=1)
    assert (handle.result(), handle.cost().invocations) == ("slept 60 s", 2)
    assert handle.record().settled_at == settled
    assert (settled or 0) >= deadline


def test_a_process_killed_in_its_sleep_leaves_the_deadline_where_it_was(tmp_path: Path) -> None:
    assert run_process(__name__, "sleeper", 0.4, id="s1", folder=tmp_path, kill_at=("suspended", 1)).killed
    due = asyncio.run(_due(tmp_path))

    assert run_process(__name__, "sleeper", 0.4, id="s1", folder=tmp_path).result == "slept 0 s"

    created, settled = asyncio.run(_instants(tmp_path))
    assert created + 400 <= (due or 0) <= (settled or 0)


async def _due(folder: Path) -> int | None:
    async with Client.open(f"sqlite:///{folder / 'store.db'}", app=app) as client:
        return (await client.get("s1")).due_at


async def _instants(folder: Path) -> tuple[int, int | None]:
    async with Client.open(f"sqlite:///{folder / 'store.db'}", app=app) as client:
        view = await client.get("s1")
        return view.created_at, view.settled_at


def test_it_survives_a_crash_at_every_point() -> None:
    survives(app, sleeper, 5, result="slept 5 s")
