"""System 28, a food delivery: six steps one after the other, and the money back if nobody can drive."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import pytest

from everstep import App, Context, Retry
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("food", retry=Retry(attempts=4, first=1))


class NoDriver(Exception):
    """Nobody drives today."""


class Delivery(TypedDict):
    order: str
    status: str
    driver: str | None


@app.step
def place(order: str) -> str:
    did("place", order=order)
    return f"ticket-{order}"


@app.step
def prepare_food(ticket: str) -> None:
    did("prepare", ticket=ticket)


@app.step(retry=Retry(attempts=3, first=1, give_up_on=(NoDriver,)))
def assign(order: str) -> str:
    if order == "far":
        raise NoDriver(order)
    did("assign")
    return "dana"


@app.step
def pick_up(driver: str) -> None:
    did("pick up", driver=driver)


@app.step
def deliver(driver: str, order: str) -> None:
    did("deliver", driver=driver, order=order)


@app.step
def complete(ticket: str) -> None:
    did("complete")


@app.step
def refund(ticket: str) -> None:
    did("refund", ticket=ticket)


@app.workflow
async def deliver_food(ctx: Context, order: str) -> Delivery:
    ticket = await ctx.run(place, order)
    await ctx.run(prepare_food, ticket)
    try:
        driver = await ctx.run(assign, order)
    except NoDriver:
        await ctx.run(refund, ticket)
        return {"order": order, "status": "failed_no_driver", "driver": None}
    await ctx.run(pick_up, driver)
    await ctx.run(deliver, driver, order)
    await ctx.run(complete, ticket)
    return {"order": order, "status": "delivered", "driver": driver}


STEPS = ["place", "prepare", "assign", "pick up", "deliver", "complete"]
ONCE = dict.fromkeys(STEPS, 1)
GOOD: Delivery = {"order": "near", "status": "delivered", "driver": "dana"}
BAD: Delivery = {"order": "far", "status": "failed_no_driver", "driver": None}
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


@BOTH
def test_a_delivery_that_fails_once_is_tried_again_alone(mode: Mode) -> None:
    world = app.provide(World(script={"deliver": ["fail"]}))
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(deliver_food, "near")) == GOOD
    assert [world.tries(step) for step in STEPS] == [1, 1, 1, 1, 2, 1]
    assert world.order() == STEPS


@BOTH
def test_without_a_driver_the_money_goes_back_and_nothing_follows(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(deliver_food, "far")) == BAD
    assert world.order() == ["place", "prepare", "refund"]
    assert world.effects("refund") == [{"ticket": "ticket-far"}]


@BOTH
@pytest.mark.parametrize("steps", [None, 1])
@pytest.mark.parametrize("done", range(1, 7))
def test_killed_after_any_step_nothing_up_to_it_is_repeated(mode: Mode, steps: int | None, done: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode, steps_per_invocation=steps)
    kill_at(sim, "delivered", done)

    assert sim.run(sim.start(deliver_food, "near")) == GOOD
    assert world.order() == STEPS


def test_a_process_killed_in_its_third_step_goes_on_from_there(tmp_path: Path) -> None:
    world = World(tmp_path, {"assign": ["kill-before"]})
    assert run_process(__name__, "deliver_food", "near", id="f1", folder=tmp_path).killed
    assert world.order() == STEPS[:2]

    assert run_process(__name__, "deliver_food", "near", id="f1", folder=tmp_path).result == GOOD
    assert world.order() == STEPS


@pytest.mark.parametrize(("order", "result"), [("near", GOOD), ("far", BAD)])
def test_it_survives_a_crash_at_every_point(order: str, result: Any) -> None:
    app.provide(World())

    survives(app, deliver_food, order, result=result)
