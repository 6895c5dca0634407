"""System 9, fan-out over work items: progress is durable for each, and results come in the order of the list."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from everstep import App, Context
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("items")


@app.step
async def process(item: str) -> str:
    await asyncio.sleep({"alpha": 0.3, "beta": 0.1, "gamma": 0.2}.get(item, 0.1))
    did(item)
    return item.upper()


@app.workflow
async def process_all(ctx: Context, items: list[str]) -> list[str]:
    started = [ctx.run(process, item) for item in items]
    return [await one for one in started]


ITEMS = ["alpha", "beta", "gamma"]
RESULT = ["ALPHA", "BETA", "GAMMA"]
ONCE = dict.fromkeys(ITEMS, 1)
IDS = {"p1.1": 1, "p1.2": 1, "p1.3": 1}
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


@BOTH
@pytest.mark.parametrize("items", [ITEMS, [], ["alpha"], [f"item {n}" for n in range(60)]], ids=len)
def test_results_come_in_the_order_of_the_list(mode: Mode, items: list[str]) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start(process_all, items, id="p1")

    assert sim.run(handle) == [item.upper() for item in items]
    assert world.counts() == dict.fromkeys(items, 1)
    assert handle.executions() == {f"p1.{n}": 1 for n in range(1, len(items) + 1)}


@BOTH
@pytest.mark.parametrize("steps", [None, 1])
def test_killed_when_one_has_settled_only_the_others_run_again_under_the_same_ids(
    mode: Mode, steps: int | None
) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode, steps_per_invocation=steps)
    handle = sim.start(process_all, ITEMS, id="p1")
    kill_at(sim, "delivered")

    assert sim.run(handle) == RESULT
    assert world.counts() == ONCE
    first = "p1.2" if steps is None else "p1.1"
    assert handle.history[0] == first
    assert handle.executions()[first] == 1
    assert set(handle.executions()) == set(IDS)


def test_a_process_killed_when_beta_has_settled_runs_the_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert run_process(__name__, "process_all", ITEMS, id="p1", folder=tmp_path, kill_at=("delivered", 1)).killed
    assert world.order() == ["beta"]

    assert run_process(__name__, "process_all", ITEMS, id="p1", folder=tmp_path).result == RESULT
    assert world.counts() == ONCE


@pytest.mark.parametrize("single_writer", [True, False])
def test_it_survives_a_crash_at_every_point(single_writer: bool) -> None:
    app.provide(World())

    survives(app, process_all, ITEMS, result=RESULT, single_writer=single_writer)
