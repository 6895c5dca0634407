"""System 33, a rate limit: ten requests, three in a second at most, with a durable sleep between them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Context, Retry, current_step
from everstep.clock import Clock, SystemClock
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("limited", retry=Retry(attempts=3, first=0.1))

GAP = 334  # milliseconds: no third of a second is shorter


class Now:
    """Tells the time to a step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock


@app.step
def request(number: int) -> str:
    did(f"request {number}", at=current_step().dependency(Now).clock.now())
    return f"answer {number}"


@app.workflow
async def call_all(ctx: Context, count: int) -> list[str]:
    answers: list[str] = []
    for number in range(1, count + 1):
        answers.append(await ctx.run(request, number))
        if number < count:
            await ctx.sleep(GAP / 1000)
    return answers


RESULT = [f"answer {number}" for number in range(1, 11)]
ONCE = {f"request {number}": 1 for number in range(1, 11)}
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


def simulated(mode: Mode, script: dict[str, list[str]] | None = None) -> tuple[Simulation, World]:
    sim = Simulation(app, mode=mode)
    app.provide(Now(sim.world.clock))
    return sim, app.provide(World(script=script))


def gaps(world: World) -> list[int]:
    sent = [one["at"] for one in world.effects()]
    return [after - before for before, after in pairwise(sent)]


@BOTH
def test_requests_keep_their_distance(mode: Mode) -> None:
    sim, world = simulated(mode)

    assert sim.run(sim.start(call_all, 10)) == RESULT
    assert world.counts() == ONCE
    assert gaps(world) == [GAP] * 9, "neither sooner nor later"


@BOTH
def test_a_request_that_fails_is_sent_again_and_none_before_it(mode: Mode) -> None:
    sim, world = simulated(mode, {"request 5": ["fail"]})

    assert sim.run(sim.start(call_all, 10)) == RESULT
    assert world.counts() == ONCE
    assert [world.tries(name) for name in ONCE] == [1, 1, 1, 1, 2, 1, 1, 1, 1, 1]
    assert min(gaps(world)) >= GAP


@BOTH
@pytest.mark.parametrize("kind", ["step", "delivered", "suspended", "acquired"])
@pytest.mark.parametrize("number", [2, 5])
def test_after_a_crash_there_is_no_burst(mode: Mode, kind: str, number: int) -> None:
    sim, world = simulated(mode)
    kill_at(sim, kind, number)

    assert sim.run(sim.start(call_all, 10)) == RESULT
    assert world.counts() == ONCE
    assert min(gaps(world)) >= GAP


@BOTH
def test_after_an_hour_without_anybody_there_is_no_burst(mode: Mode) -> None:
    """The sleep that was over long ago is one sleep; the next one begins after the request that follows it."""
    sim, world = simulated(mode)
    handle = sim.start(call_all, 10)
    sim.advance(milliseconds=GAP + 100)
    sim.kill()
    sim.world.clock.advance(3_600_000)

    assert sim.run(handle) == RESULT
    assert world.counts() == ONCE
    assert min(gaps(world)) >= GAP


def prepare(folder: Path) -> None:
    app.provide(Now(SystemClock()))


def test_a_process_killed_in_a_sleep_keeps_the_distance(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert run_process(__name__, "call_all", 4, id="r1", folder=tmp_path, kill_at=("suspended", 2)).killed

    assert run_process(__name__, "call_all", 4, id="r1", folder=tmp_path).result == RESULT[:4]
    assert world.counts() == {f"request {number}": 1 for number in range(1, 5)}
    assert min(gaps(world)) >= GAP


def test_it_survives_a_crash_at_every_point() -> None:
    def apart(sim: Simulation, handle: Any) -> None:
        """A request may be sent again at once when nobody knows of it; the next one keeps its distance."""
        first: dict[str, int] = {}
        for event in sim.events:
            if event.kind == "step":
                first.setdefault(event.id, event.at)
        assert len(first) == 3
        assert all(after - before >= GAP for before, after in pairwise(first.values()))

    app.provide(World())
    app.provide(Now(SystemClock()))
    survives(app, call_all, 3, result=RESULT[:3], check=apart)
