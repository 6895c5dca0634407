"""System 45, a pipeline of agents: a researcher, a writer and a reviewer; every hand-off is a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import pytest

from everstep import App, Context, Retry, current_step
from everstep.models import Message, Model, Scripted, Tool, system, user
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("agents", retry=Retry(attempts=3, first=0.1))

ROLES = {
    "researcher": "You gather facts.",
    "writer": "You write an article from facts.",
    "reviewer": "You review an article. Say APPROVED, or what is wrong with it.",
}


class Outcome(TypedDict):
    status: str
    article: str
    review: str


@app.step
async def ask(agent: str, brief: str) -> str:
    model = current_step().dependency(Model)
    return (await model.reply([system(ROLES[agent]), user(brief)])).text


@app.workflow
async def publish(ctx: Context, topic: str) -> Outcome:
    facts = await ctx.run(ask, "researcher", topic)
    article = await ctx.run(ask, "writer", facts)
    review = await ctx.run(ask, "reviewer", article)
    return {"status": "published" if "APPROVED" in review else "rejected", "article": article, "review": review}


AGENTS = list(ROLES)
ONCE = dict.fromkeys(AGENTS, 1)
GOOD: Outcome = {"status": "published", "article": "article on facts on tides", "review": "APPROVED"}
BAD: Outcome = {"status": "rejected", "article": "article on facts on rumours", "review": "Too thin."}
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


def answers(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    role, brief = messages[0].text, messages[-1].text
    agent = next(name for name, text in ROLES.items() if text == role)
    did(agent, prompt=brief)
    if agent == "researcher":
        return f"facts on {brief}"
    if agent == "writer":
        return f"article on {brief}"
    return "Too thin." if "rumours" in brief else "APPROVED"


app.provide(Scripted(answers))


@BOTH
@pytest.mark.parametrize(("topic", "outcome"), [("tides", GOOD), ("rumours", BAD)])
def test_what_the_reviewer_approves_is_published(mode: Mode, topic: str, outcome: Outcome) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(publish, topic)) == outcome
    assert world.order() == AGENTS


@BOTH
def test_a_writer_that_fails_once_is_asked_again_alone(mode: Mode) -> None:
    world = app.provide(World(script={"writer": ["fail"]}))
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(publish, "tides")) == GOOD
    assert [world.tries(agent) for agent in AGENTS] == [1, 2, 1]


@BOTH
@pytest.mark.parametrize("steps", [None, 1])
@pytest.mark.parametrize("done", [1, 2, 3])
def test_killed_between_agents_no_prompt_is_repeated(mode: Mode, steps: int | None, done: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode, steps_per_invocation=steps)
    kill_at(sim, "delivered", done)

    assert sim.run(sim.start(publish, "tides")) == GOOD
    assert world.counts() == ONCE


def test_a_process_killed_between_agents_repeats_no_prompt(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert run_process(__name__, "publish", "tides", id="p", folder=tmp_path, kill_at=("delivered", 1)).killed
    assert run_process(__name__, "publish", "tides", id="p", folder=tmp_path, kill_at=("delivered", 1)).killed

    assert run_process(__name__, "publish", "tides", id="p", folder=tmp_path).result == GOOD
    assert world.order() == AGENTS


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, publish, "tides", result=GOOD)
