"""System 49, a reminder agent: a model reads a request, finds the instant, and a timer of any length does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from everstep import App, Context, Retry, current_step
from everstep.models import Message, Model, Scripted, Tool, ToolCall, assistant, tool, user
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("reminder", retry=Retry(attempts=3, first=0.1))

TOOLS = [
    Tool("current_time", "The time now, ISO 8601, UTC."),
    Tool(
        "remind",
        "Send a reminder at an instant (ISO 8601).",
        {"type": "object", "properties": {"at": {"type": "string"}, "text": {"type": "string"}}},
    ),
]


@app.step
async def think(messages: list[Message]) -> Message:
    return await current_step().dependency(Model).reply(messages, TOOLS)


@app.step
def send(text: str) -> None:
    did("send", text=text)


@app.workflow
async def current_time(ctx: Context) -> str:
    return ctx.now().isoformat()  # recorded: the same on every replay


@app.workflow
async def remind(ctx: Context, at: datetime, text: str) -> str:
    await ctx.sleep_until(at)
    await ctx.run(send, text)
    return f"sent for {at.isoformat()}"


USE = {"current_time": current_time, "remind": remind}


@app.workflow
async def assist(ctx: Context, request: str, most: int = 5) -> str:
    """Let the model use its tools until it has nothing left to use, `most` times at the most."""
    messages = [user(request)]
    for _ in range(most):
        said = await ctx.run(think, messages)
        if not said.calls:
            return said.text
        messages.append(said)
        for call in said.calls:
            messages.append(tool(call, await ctx.run(USE[call.name], **call.arguments)))
    return f"gave up after {most} steps"


def scripted(messages: Sequence[Message], tools: Sequence[Tool]) -> Message:
    request, last = messages[0].text, messages[-1]
    did("model", heard=[one.text for one in messages])
    if request == "think for ever" or len(messages) == 1:
        return assistant("", ToolCall(f"c{len(messages)}", "current_time"))
    if last.text.startswith("sent for"):
        return assistant(last.text)
    now = datetime.fromisoformat(last.text)
    at = {
        "tomorrow 9:00": (now + timedelta(days=1)).replace(hour=9, minute=0, second=0, microsecond=0),
        "yesterday": now - timedelta(days=1),
        "in a moment": now + timedelta(seconds=0.4),
    }[request]
    return assistant("", ToolCall("c2", "remind", {"at": at.isoformat(), "text": "Water the plants."}))


app.provide(Scripted(scripted))

NINE = "sent for 2023-11-15T09:00:00+00:00"
"""The virtual clock begins on 2023-11-14 at 22:13:20."""
HEARD = [1, 3, 5]
"""How many messages the model hears, each time it is asked."""
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


def heard(world: World) -> list[int]:
    return [len(one["heard"]) for one in world.effects("model")]


@BOTH
def test_tomorrow_at_nine_is_that_instant_and_once(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start(assist, "tomorrow 9:00")
    sim.advance_to(datetime.fromisoformat("2023-11-15T08:59:59.999+00:00"))
    assert world.count("send") == 0

    sim.advance(milliseconds=1)
    assert (handle.result(), world.count("send")) == (NINE, 1)
    assert heard(world) == HEARD


@BOTH
@pytest.mark.parametrize("hours", [0, 5, 10])
def test_killed_in_the_wait_it_comes_at_the_same_instant(mode: Mode, hours: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start(assist, "tomorrow 9:00")
    sim.advance(hours=hours)
    sim.kill()

    assert sim.run(handle) == NINE
    assert (world.count("send"), heard(world)) == (1, HEARD)


@BOTH
@pytest.mark.parametrize("done", range(1, 7))
def test_killed_anywhere_the_model_is_asked_what_the_script_says(mode: Mode, done: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered", done)

    assert sim.run(sim.start(assist, "tomorrow 9:00")) == NINE
    assert (world.count("send"), heard(world)) == (1, HEARD)


@BOTH
def test_an_instant_in_the_past_is_now(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    began = sim.now

    assert sim.run(sim.start(assist, "yesterday")) == f"sent for {(began - timedelta(days=1)).isoformat()}"
    assert (sim.now, world.count("send")) == (began, 1)


@BOTH
def test_a_model_that_thinks_for_ever_is_stopped_after_five_steps(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(assist, "think for ever")) == "gave up after 5 steps"
    assert world.count("model") == 5


def test_a_process_killed_in_the_wait_sends_once_and_asks_nothing_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert run_process(__name__, "assist", "in a moment", id="r", folder=tmp_path, kill_at=("suspended", 1)).killed
    assert world.order() == ["model", "model"]

    assert run_process(__name__, "assist", "in a moment", id="r", folder=tmp_path).result.startswith("sent for")
    assert (world.count("send"), heard(world)) == (1, HEARD)


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, assist, "tomorrow 9:00", result=NINE)
