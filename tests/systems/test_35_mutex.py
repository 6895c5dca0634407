"""System 35, a mutex by sequencing: workers use one resource in turn, because a loop awaits each before the next."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from everstep import App, Conflict, Context, Retry, current_step
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, run_process, survives

app = App("mutex", retry=Retry(attempts=3, first=0.1))


class Stopwatch:
    """The instants between which a worker held the resource."""

    def __init__(self) -> None:
        self.held: list[tuple[str, float, float]] = []


app.provide(Stopwatch())


@app.step
async def work(resource: str, worker: str) -> str:
    loop = asyncio.get_running_loop()
    began = loop.time()
    did(worker, resource=resource)
    await asyncio.sleep(0.02)
    current_step().dependency(Stopwatch).held.append((worker, began, loop.time()))
    return f"{worker} used {resource}"


@app.workflow
async def in_turn(ctx: Context, resource: str, workers: list[str]) -> list[str]:
    """The id of the run is the name of the lock: `lock-<resource>`."""
    return [await ctx.run(work, resource, worker) for worker in workers]


WORKERS = list("ABCDE")
RESULT = [f"{worker} used printer" for worker in WORKERS]
ONCE = dict.fromkeys(WORKERS, 1)


@pytest.mark.parametrize("mode", ["rows", "queue"])
@pytest.mark.parametrize("steps", [None, 1])
def test_no_two_workers_hold_it_at_once_and_their_order_is_kept(mode: Mode, steps: int | None) -> None:
    world, watch = app.provide(World()), app.provide(Stopwatch())
    sim = Simulation(app, mode=mode, instances=3, steps_per_invocation=steps)

    assert sim.run(sim.start(in_turn, "printer", WORKERS)) == RESULT
    assert [worker for worker, _, _ in watch.held] == world.order() == WORKERS
    assert all(left[2] <= right[1] for left, right in pairwise(watch.held))


def test_one_that_fails_is_retried_before_the_next_begins() -> None:
    world = app.provide(World(script={"C": ["fail"]}))
    sim = Simulation(app)

    assert sim.run(sim.start(in_turn, "printer", WORKERS)) == RESULT
    assert world.order() == WORKERS
    assert [world.tries(worker) for worker in WORKERS] == [1, 1, 2, 1, 1]


def test_a_process_killed_while_one_holds_it_repeats_that_one_alone(tmp_path: Path) -> None:
    world = World(tmp_path, {"C": ["kill"]})
    assert run_process(__name__, "in_turn", "printer", WORKERS, id="lock-printer", folder=tmp_path).killed

    done = run_process(__name__, "in_turn", "printer", WORKERS, id="lock-printer", folder=tmp_path)

    assert done.result == RESULT
    assert world.order() == ["A", "B", "C", "C", "D", "E"]


def test_a_second_run_on_the_resource_attaches_and_does_not_interleave() -> None:
    world = app.provide(World())
    sim = Simulation(app, instances=2)
    first = sim.start(in_turn, "printer", WORKERS, id="lock-printer")
    sim.advance(milliseconds=30)
    second = sim.start(in_turn, "printer", WORKERS, id="lock-printer")
    with pytest.raises(Conflict):
        sim.start(in_turn, "printer", ["X", "Y"], id="lock-printer")
    attached = sim.start(in_turn, "printer", ["X", "Y"], id="lock-printer", on_conflict="attach")

    assert sim.run(first) == sim.run(second) == sim.run(attached) == RESULT
    assert world.counts() == ONCE


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, in_turn, "printer", WORKERS, result=RESULT)
