"""System 29, an order's life cycle: where the workflow stands is the state of the order; there is no other variable."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Client, Context, Retry
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from everstep.views import TreeView
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("lifecycle", retry=Retry(attempts=3, first=0.1))


@app.step
async def become(order: str, state: str) -> str:
    await asyncio.sleep(0.2)  # whoever has to be told of it
    did(state, order=order)
    return state


@app.workflow
async def lifecycle(ctx: Context, order: str, cancelled: bool = False) -> list[str]:
    path = [await ctx.run(become, order, "created"), await ctx.run(become, order, "confirmed")]
    for state in ("cancelled", "refunded") if cancelled else ("shipped", "delivered"):
        path.append(await ctx.run(become, order, state))
    return path


def state_of(run: TreeView) -> str:
    """The order's state: the transition that was recorded last."""
    done = [one.promise.value for one in run.children if one.promise.state == "resolved"]
    return str(done[-1]) if done else "new"


DELIVERED = ["created", "confirmed", "shipped", "delivered"]
CANCELLED = ["created", "confirmed", "cancelled", "refunded"]
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])
PATHS = pytest.mark.parametrize(("cancelled", "path"), [(False, DELIVERED), (True, CANCELLED)])


@BOTH
@PATHS
def test_the_transitions_come_in_order(mode: Mode, cancelled: bool, path: list[str]) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(lifecycle, "o-1", cancelled)) == path
    assert world.order() == path


@BOTH
@PATHS
def test_inspection_shows_the_last_settled_state_at_any_moment(mode: Mode, cancelled: bool, path: list[str]) -> None:
    app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start(lifecycle, "o-1", cancelled)
    seen = []
    for _ in range(10):
        sim.advance(milliseconds=100)
        seen.append(state_of(handle.tree()))

    one, two, three, four = path
    assert seen == ["new", one, one, two, two, three, three, four, four, four]


@BOTH
def test_shipping_that_fails_once_is_recorded_once(mode: Mode) -> None:
    world = app.provide(World(script={"shipped": ["fail"]}))
    sim = Simulation(app, mode=mode)
    handle = sim.start(lifecycle, "o-1")

    assert sim.run(handle) == DELIVERED
    assert [world.tries(state) for state in DELIVERED] == [1, 1, 2, 1]
    assert [one.promise.value for one in handle.tree().children] == DELIVERED


@BOTH
@PATHS
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_killed_in_a_transition_the_earlier_ones_happen_once(
    mode: Mode, cancelled: bool, path: list[str], number: int
) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start(lifecycle, "o-1", cancelled)
    sim.advance(milliseconds=200 * number - 100)
    assert world.order() == path[: number - 1]
    sim.kill()

    assert sim.run(handle) == path
    assert world.order() == path


@BOTH
def test_killed_after_a_transition_that_was_not_recorded_it_alone_happens_again(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    kill_at(sim, "step", 3)

    assert sim.run(sim.start(lifecycle, "o-1")) == DELIVERED
    assert world.order() == DELIVERED


def test_a_process_killed_while_it_ships_shows_confirmed_and_ships_again(tmp_path: Path) -> None:
    world = World(tmp_path, {"shipped": ["kill"]})
    assert run_process(__name__, "lifecycle", "o-1", id="o-1", folder=tmp_path).killed
    assert asyncio.run(_look(tmp_path)) == "confirmed"

    assert run_process(__name__, "lifecycle", "o-1", id="o-1", folder=tmp_path).result == DELIVERED
    assert asyncio.run(_look(tmp_path)) == "delivered"
    assert world.counts() == {"created": 1, "confirmed": 1, "shipped": 2, "delivered": 1}


async def _look(folder: Path) -> str:
    async with Client.open(f"sqlite:///{folder / 'store.db'}", app=app) as client:
        return state_of(await client.tree("o-1"))


@PATHS
def test_it_survives_a_crash_at_every_point(cancelled: bool, path: list[str]) -> None:
    app.provide(World())

    def shown(sim: Simulation, handle: Any) -> None:
        assert state_of(handle.tree()) == path[-1]

    survives(app, lifecycle, "o-1", cancelled, result=path, check=shown)
