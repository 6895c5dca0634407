"""System 8, fan-out and fan-in: email, SMS, chat and push are sent side by side; each channel is a checkpoint."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from everstep import App, Context, Retry
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("notify", retry=Retry(attempts=3, first=0.1))

TAKES = {"email": 0.2, "sms": 0.15, "slack": 0.1, "push": 0.4}


@app.step
async def send(channel: str, user: str) -> str:
    await asyncio.sleep(TAKES[channel])
    did(channel, user=user)
    return f"{channel} to {user}"


@app.workflow
async def notify(ctx: Context, user: str) -> list[str]:
    return await asyncio.gather(*[ctx.run(send, channel, user) for channel in TAKES])


SENT = [f"{channel} to kim" for channel in TAKES]
ONCE = dict.fromkeys(TAKES, 1)
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


@BOTH
def test_it_takes_as_long_as_the_slowest_channel(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    began = sim.now_ms

    assert sim.run(sim.start(notify, "kim")) == SENT
    assert sim.now_ms - began == 400
    assert world.order() == ["slack", "sms", "email", "push"]


@BOTH
def test_a_channel_that_fails_is_tried_again_alone(mode: Mode) -> None:
    world = app.provide(World(script={"push": ["fail"]}))
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(notify, "kim")) == SENT
    assert [world.tries(channel) for channel in TAKES] == [1, 1, 1, 2]
    assert world.counts() == ONCE


@BOTH
def test_a_channel_that_stays_out_of_order_fails_the_run_with_the_others_sent(mode: Mode) -> None:
    world = app.provide(World(script={"push": ["fail"] * 3}))
    sim = Simulation(app, mode=mode)

    with pytest.raises(Exception, match="push is out of order"):
        sim.run(sim.start(notify, "kim"))
    assert world.counts() == {"slack": 1, "sms": 1, "email": 1}
    assert world.tries("push") == 3


@BOTH
def test_killed_after_two_are_recorded_only_the_others_are_sent(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered", 2)

    assert sim.run(sim.start(notify, "kim")) == SENT
    assert world.counts() == ONCE


def test_a_process_killed_after_two_are_recorded_sends_only_the_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert run_process(__name__, "notify", "kim", id="n1", folder=tmp_path, kill_at=("delivered", 2)).killed
    assert world.order() == ["slack", "sms"]

    assert run_process(__name__, "notify", "kim", id="n1", folder=tmp_path).result == SENT
    assert world.counts() == ONCE


@pytest.mark.parametrize("single_writer", [True, False])
def test_it_survives_a_crash_at_every_point(single_writer: bool) -> None:
    app.provide(World())

    survives(app, notify, "kim", result=SENT, single_writer=single_writer)


def test_with_a_channel_that_fails_once_it_survives_a_crash_at_every_point() -> None:
    def fresh() -> None:
        app.provide(World(script={"push": ["fail"]}))

    survives(app, notify, "kim", result=SENT, setup=fresh, at_most=3)
