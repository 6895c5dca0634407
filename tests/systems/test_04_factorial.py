"""System 4, recursive factorial: a function that calls itself across a pool. Every call is a promise named by its
input: what was worked out once is never worked out again, whoever asks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Context
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("factorial")


@app.step
def multiply(n: int, below: int) -> int:
    did("multiply", n=n)
    return n * below


@app.workflow
async def factorial(ctx: Context, n: int) -> int:
    below = 1 if n <= 1 else await ctx.options(id=f"factorial-{n - 1}").rpc(factorial, n - 1)
    return await ctx.run(multiply, n, below)


@app.workflow
async def ask(ctx: Context, n: int) -> int:
    """Somebody else who needs it."""
    return await ctx.options(id=f"factorial-{n}").rpc(factorial, n)


BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


def worked_out(world: World) -> Counter[int]:
    return Counter(one["n"] for one in world.effects("multiply"))


def promises(sim: Simulation) -> list[str]:
    found, _ = sim.call(lambda client: client.search(prefix="factorial-"))
    return [one.id for one in found]


@BOTH
def test_every_call_leaves_a_promise_and_the_next_one_needs_only_one_more(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode, instances=3)

    assert sim.run(sim.start(factorial, 5, id="factorial-5")) == 120
    assert promises(sim) == [f"factorial-{n}" for n in range(1, 6)]
    assert world.count("multiply") == 5

    assert sim.run(sim.start(factorial, 6, id="factorial-6")) == 720
    assert worked_out(world) == dict.fromkeys(range(1, 7), 1)
    assert len(promises(sim)) == 6


@BOTH
def test_two_callers_at_once_share_one_set_of_bodies(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode, instances=3)
    callers = [sim.start(ask, 6), sim.start(ask, 6), sim.start(factorial, 6, id="factorial-6")]

    assert [sim.run(one) for one in callers] == [720, 720, 720]
    assert worked_out(world) == dict.fromkeys(range(1, 7), 1)


@BOTH
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_killed_at_any_depth_every_number_is_worked_out_once(mode: Mode, number: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered", number)

    assert sim.run(sim.start(factorial, 5, id="factorial-5")) == 120
    assert worked_out(world) == dict.fromkeys(range(1, 6), 1)


def test_a_process_killed_at_depth_three_leaves_what_was_worked_out(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = run_process(__name__, "factorial", 5, id="factorial-5", folder=tmp_path, kill_at=("delivered", 5))
    assert first.killed
    assert 3 <= world.count("multiply") < 5

    assert run_process(__name__, "factorial", 5, id="factorial-5", folder=tmp_path).result == 120
    assert worked_out(world) == dict.fromkeys(range(1, 6), 1)


@pytest.mark.parametrize("single_writer", [True, False])
def test_it_survives_a_crash_at_every_point(single_writer: bool) -> None:
    app.provide(World())

    def shared(sim: Simulation, handle: Any) -> None:
        assert promises(sim) == ["factorial-1", "factorial-2"]

    survives(app, factorial, 2, result=2, id="factorial-2", check=shared, single_writer=single_writer)
