"""System 53, an asynchronous MCP tool over a background job: a timer is set, and asked about later."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from everstep import App, Context
from everstep.mcp import Probe, Tool, Tools
from everstep.testing import Simulation
from tests.systems.scaffold import World, did, survives
from tests.systems.tool_server import TRANSPORTS, call, connected, refused, settle_in, settled

app = App("kitchen")


@app.step
def ring(name: str) -> str:
    did("ring", name=name)
    return f"{name} is ready"


@app.workflow
async def timer(ctx: Context, name: str, seconds: float) -> str:
    """A kitchen timer."""
    await ctx.sleep(seconds)
    return await ctx.run(ring, name)


settle_in(app)

tools = Tools(
    app,
    Tool(timer, name="set_timer", id="timer-{name}", wait=0, on_conflict="attach"),
    Probe("get_timer_status", id="timer-{name}"),
    standard=False,
)

PROGRAM = f"{__name__}:tools"
BOTH = pytest.mark.parametrize("transport", TRANSPORTS)


@BOTH
def test_a_timer_runs_and_is_done_and_a_second_one_of_its_name_attaches(transport: str, tmp_path: Path) -> None:
    async def talk() -> None:
        async with connected(transport, PROGRAM, tmp_path) as client:
            asked = asyncio.get_running_loop().time()
            set_ = await call(client, "set_timer", name="tea", seconds=3)
            assert (set_["id"], "value" in set_) == ("timer-tea", False)
            again = await call(client, "set_timer", name="tea", seconds=3600)
            assert again["id"] == "timer-tea"
            assert (await call(client, "get_timer_status", name="tea"))["status"] in ("running", "waiting", "queued")
            found = await settled(client, "get_timer_status", name="tea")
            assert (found["status"], found["value"]) == ("done", "tea is ready")
            assert asyncio.get_running_loop().time() - asked >= 3, "its deadline is that of the first call"

    asyncio.run(talk())

    assert World(tmp_path).effects("ring") == [{"name": "tea"}]


@BOTH
def test_it_survives_the_server(transport: str, tmp_path: Path) -> None:
    """Whoever is there when it is due rings, and if nobody is, the next one that comes; once."""

    async def talk() -> None:
        async with connected(transport, PROGRAM, tmp_path) as client:
            await call(client, "set_timer", name="tea", seconds=0.5)
        async with connected(transport, PROGRAM, tmp_path) as client:
            found = await settled(client, "get_timer_status", name="tea")
            assert found["value"] == "tea is ready"
            assert "there is no run 'timer-soup'" in await refused(client, "get_timer_status", name="soup")
            assert "expected float, got str" in await refused(client, "set_timer", name="egg", seconds="soon")
            dotted = await call(client, "set_timer", name="no. 5", seconds=3600)
            assert dotted["id"] == "timer-no%2E 5"
            assert (await call(client, "get_timer_status", name="no. 5"))["status"] in ("queued", "running", "waiting")

    asyncio.run(talk())

    assert World(tmp_path).effects("ring") == [{"name": "tea"}]


def test_a_second_start_leaves_the_deadline_where_it_was() -> None:
    world = app.provide(World())
    sim = Simulation(app)
    handle = sim.start(timer, "tea", 180.0, id="timer-tea")
    sim.advance(seconds=100)
    sim.start(timer, "tea", 3600.0, id="timer-tea", on_conflict="attach")

    sim.advance(seconds=79)
    assert handle.status() == "pending"
    sim.advance(seconds=1)

    assert (handle.result(), world.count("ring")) == ("tea is ready", 1)


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, timer, "tea", 180.0, result="tea is ready")
