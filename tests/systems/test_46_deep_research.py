"""System 46, recursive research: a model splits a topic, each subtopic is a run of its own, and what they found is
summed up. Only the way down is limited: at depth 0 the model is offered no tool."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Context, Retry, current_step
from everstep.models import Message, Model, Scripted, Tool, ToolCall, assistant, system, tool, user
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("research", retry=Retry(attempts=3, first=0.1))

TOPIC = {"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]}
RESEARCH = Tool("research", "Have a subtopic researched.", TOPIC)


@app.step
async def think(messages: list[Message], depth: int) -> Message:
    tools = [RESEARCH] if depth > 0 else []
    return await current_step().dependency(Model).reply(messages, tools)


@app.workflow
async def research(ctx: Context, topic: str, depth: int) -> str:
    messages = [system("Split the topic, or answer."), user(topic)]
    while True:
        said = await ctx.run(think, messages, depth)
        if not said.calls:
            return said.text
        below = [ctx.rpc(research, call.arguments["topic"], depth - 1) for call in said.calls]
        found = await asyncio.gather(*below)
        messages += [said, *[tool(call, text) for call, text in zip(said.calls, found, strict=True)]]


def scripted(messages: Sequence[Message], tools: Sequence[Tool]) -> Message:
    topic, found = messages[1].text, [one.text for one in messages if one.role == "tool"]
    did("model", topic=topic, tools=[one.name for one in tools], found=len(found))
    if found:
        return assistant(f"{topic}[{' '.join(found)}]")
    if not tools:
        return assistant(topic)
    return assistant("", *[ToolCall(f"c{part}", "research", {"topic": f"{topic}{part}"}) for part in (1, 2)])


app.provide(Scripted(scripted))

ANSWER = {0: "tides", 1: "tides[tides1 tides2]", 2: "tides[tides1[tides11 tides12] tides2[tides21 tides22]]"}
CALLS = {0: 1, 1: 4, 2: 10}
"""Of the model: once for a leaf, twice for a node above others."""
NODES = {0: 1, 1: 3, 2: 7}
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


@BOTH
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_tree_has_a_run_for_each_topic(mode: Mode, depth: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode, instances=3)
    handle = sim.start(research, "tides", depth, id="r")

    assert sim.run(handle) == ANSWER[depth]
    assert world.count("model") == CALLS[depth]
    assert sum(one.kind in ("root", "rpc") for one in handle.tree().walk()) == NODES[depth]


@BOTH
def test_at_depth_zero_no_tool_is_offered(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    sim.run(sim.start(research, "tides", 1))

    offered = {one["topic"]: one["tools"] for one in world.effects("model")}
    assert offered == {"tides": ["research"], "tides1": [], "tides2": []}


@BOTH
@pytest.mark.parametrize("done", range(1, 17))
def test_killed_after_any_step_the_model_is_asked_nothing_again(mode: Mode, done: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode, instances=2)
    kill_at(sim, "delivered", done)

    assert sim.run(sim.start(research, "tides", 2)) == ANSWER[2]
    assert world.count("model") in (CALLS[2], CALLS[2] + 1), "but for what the other instance had under way"


def test_processes_killed_again_and_again_ask_nothing_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    for done in (2, 3):
        kill = ("delivered", done)
        assert run_process(__name__, "research", "tides", 2, id="r", folder=tmp_path, kill_at=kill).killed

    assert run_process(__name__, "research", "tides", 2, id="r", folder=tmp_path).result == ANSWER[2]
    asked = [(one["topic"], one["found"]) for one in world.effects("model")]
    assert len(asked) - len(set(asked)) <= 2, "what was under way at a death, and nothing that was recorded"


@pytest.mark.parametrize("single_writer", [True, False])
def test_killed_at_every_write_it_says_the_same_and_asks_nothing_again(single_writer: bool) -> None:
    worlds: list[World] = []

    def asked_once(sim: Simulation, handle: Any) -> None:
        assert worlds[-1].count("model") <= CALLS[2] + 1, "the step under way, and no other"

    survives(
        app,
        research,
        "tides",
        2,
        result=ANSWER[2],
        setup=lambda: worlds.append(app.provide(World())),
        check=asked_once,
        single_writer=single_writer,
    )
