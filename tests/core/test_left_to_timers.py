"""A body that waits for a promise and a timer together is woken by the timer once the promise is settled (rule W1).

While the promise is pending the timer alone satisfies nothing and nobody looks when it comes; so whoever settles the
promise, or finds it settled, must see to that.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everstep import App, Context
from everstep.clock import NEVER
from everstep.promise import State, ready_at
from everstep.testing import Simulation, crash_everywhere

app = App("both")


@app.workflow
async def one(ctx: Context, n: int) -> int:
    return n


@app.workflow
async def child_and_nap(ctx: Context, seconds: float) -> list[Any]:
    return await asyncio.gather(ctx.rpc(one, 7), ctx.sleep(seconds))


@app.workflow
async def asked_and_nap(ctx: Context) -> list[Any]:
    return await asyncio.gather(ctx.promise(), ctx.promise(), ctx.sleep(30))


WAYS: list[dict[str, Any]] = [
    {},
    {"mode": "queue"},
    {"mode": "queue", "single_writer": False},
    {"mode": "queue", "single_writer": False, "cache": 0},
    {"mode": "queue", "single_writer": False, "instances": 3},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_timer_wakes_a_body_whose_promise_was_settled_first(way: dict[str, Any]) -> None:
    sim = Simulation(app, **way)
    child = sim.start(child_and_nap, 30, id="c")
    asked = sim.start(asked_and_nap, id="a")
    sim.advance(seconds=5)
    sim.resolve("a.2", 2)
    sim.advance(seconds=5)
    sim.resolve("a.1", 1)
    sim.advance(seconds=19)
    assert (child.status(), asked.status()) == ("pending", "pending")
    sim.advance(seconds=3)
    assert child.result() == [7, None]
    assert asked.result() == [1, 2, None]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_promise_wakes_a_body_whose_timer_has_passed(way: dict[str, Any]) -> None:
    sim = Simulation(app, **way)
    asked = sim.start(asked_and_nap, id="a")
    sim.advance(seconds=5)
    sim.resolve("a.1", 1)
    sim.advance(seconds=60)
    sim.resolve("a.2", 2)
    sim.advance(seconds=3)
    assert asked.result() == [1, 2, None]


@pytest.mark.parametrize("single_writer", [True, False])
def test_however_it_crashes(single_writer: bool) -> None:
    modes: Any = ("rows", "queue") if single_writer else ("queue",)
    crash_everywhere(app, child_and_nap, 30, modes=modes, single_writer=single_writer)


@pytest.mark.parametrize(
    ("tree", "settled", "at"),
    [
        (("all", "p", "t9"), (), NEVER),
        (("all", "p", "t9"), ("p",), 9),
        (("all", "p", "q", "t9"), ("p",), NEVER),
        (("all", "p", "t9", "t3"), ("p",), 9),
        (("any", ("all", "p", "t3"), "t9"), (), 9),
        (("any", ("all", "p", "t3"), "t9"), ("p",), 3),
        (("try", "bad", "t9"), ("bad",), 0),
        (("all", ("try", "p", "bad"), "t9"), ("bad",), 9),
        (("all",), (), 0),
    ],
)
def test_when_timers_alone_satisfy_what_is_left(tree: Any, settled: tuple[str, ...], at: int) -> None:
    states = {id: State.REJECTED if id == "bad" else State.RESOLVED for id in settled}
    assert ready_at(tree, {"t3": 3, "t9": 9}, lambda id: states.get(id, State.PENDING)) == at
