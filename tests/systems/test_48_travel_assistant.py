"""System 48, a travel assistant: a model that searches, reads pages and talks with its user. Every call of the model,
every tool and everything the user says is a checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Context, Retry, Runtime, current_step
from everstep.models import Message, Model, Scripted, Tool, ToolCall, assistant, system, tool, user
from everstep.testing import Simulation
from everstep.testing.simulation import Mode, SimHandle
from everstep.testing.world import Crashed, Event
from tests.components import requires_component
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("travel", retry=Retry(attempts=3, first=0.1))

DONE = "TRIP PLANNING COMPLETE"


def takes(name: str, about: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string", "description": about}}, "required": [name]}


TOOLS = [
    Tool("ask_user", "Ask the traveller something.", takes("question", "what to ask")),
    Tool("search", "Search the web.", takes("query", "what to look for")),
    Tool("scrape", "Read a page.", takes("url", "its address")),
]


class Web:
    """What there is to read; somebody else's."""

    def __init__(self, page: str = "trains leave at 9") -> None:
        self.page = page


app.provide(Web())


@app.step
async def think(messages: list[Message]) -> Message:
    return await current_step().dependency(Model).reply(messages, TOOLS)


@app.step
def search(query: str) -> str:
    did(f"search {query}")
    return f"https://travel.example/{query}"


@app.step
def scrape(url: str) -> str:
    did(f"scrape {url}")
    return current_step().dependency(Web).page


@app.step
def show(question: str, promise_id: str) -> None:
    """Put the question where the traveller sees it; the answer goes to the promise."""
    did(f"ask {question}", promise=promise_id)


async def use(ctx: Context, call: ToolCall) -> str:
    match call:
        case ToolCall(name="ask_user", arguments={"question": question}):
            answer = ctx.promise(tags={"question": question})
            await ctx.run(show, question, answer.id)
            return str(await answer)
        case ToolCall(name="search", arguments={"query": query}):
            return await ctx.run(search, query)
        case ToolCall(name="scrape", arguments={"url": url}):
            return await ctx.run(scrape, url)
    return f"there is no tool {call.name} for {call.arguments}"


@app.workflow
async def plan_trip(ctx: Context, wish: str, most: int = 20) -> list[Message]:
    messages = [system("You plan trips."), user(wish)]
    for _ in range(most):
        said = await ctx.run(think, messages)
        messages.append(said)
        if DONE in said.text:
            break
        for call in said.calls:
            messages.append(tool(call, await use(ctx, call)))
    return messages


def call(name: str, **arguments: str) -> Message:
    return assistant("", ToolCall(f"call-{name}-{'-'.join(arguments.values())}"[:40], name, arguments))


SCRIPT = [
    call("ask_user", question="Where from?"),
    call("search", query="trains"),
    call("scrape", url="https://travel.example/trains"),
    call("ask_user", question="Which hotel?"),
    call("search", query="hotels"),
    call("ask_user", question="Shall I book?"),
    assistant(f"By train, to the Grand Hotel. {DONE}"),
]
ANSWERS = {"Where from?": "Basel", "Which hotel?": "the Grand", "Shall I book?": "yes"}
ONCE = {
    **{f"model {number}": 1 for number in range(7)},
    **{f"ask {question}": 1 for question in ANSWERS},
    **dict.fromkeys(["search trains", "search hotels", "scrape https://travel.example/trains"], 1),
}


def scripted(messages: Sequence[Message], tools: Sequence[Tool]) -> Message:
    number = sum(one.role == "assistant" for one in messages)
    did(f"model {number}")
    return SCRIPT[number]


app.provide(Scripted(scripted))


def expected(page: str = "trains leave at 9") -> list[Message]:
    replies = ["Basel", "https://travel.example/trains", page, "the Grand", "https://travel.example/hotels", "yes"]
    talk = [system("You plan trips."), user("Rome")]
    for said, reply in zip(SCRIPT, replies, strict=False):
        talk += [said, tool(said.calls[0], reply)]
    return [*talk, SCRIPT[-1]]


def talk(sim: Simulation, handle: SimHandle[list[Message]]) -> list[Message]:
    """The traveller, who answers every question an hour later."""
    while not handle.done:
        sim.advance(hours=1)
        for id in handle.waiting_for:
            question = sim.record(id).tags.get("question")
            if question is not None:
                sim.resolve(id, ANSWERS[question])
    return handle.result()


BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


@BOTH
def test_six_turns_end_with_a_plan(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    result = talk(sim, sim.start(plan_trip, "Rome"))

    assert result == expected()
    assert result[-1].text.endswith(DONE)
    assert world.counts() == ONCE


@BOTH
@pytest.mark.parametrize("done", range(1, 14))
def test_killed_after_any_step_the_talk_is_the_same_and_nobody_is_asked_twice(mode: Mode, done: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered", done)

    assert talk(sim, sim.start(plan_trip, "Rome")) == expected()
    assert world.counts() == ONCE


@BOTH
@pytest.mark.parametrize("steps", [None, 1])
def test_killed_after_every_step_of_one_talk(mode: Mode, steps: int | None) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode, steps_per_invocation=steps)
    killed: set[str] = set()

    def kill(event: Event) -> None:
        if event.kind == "delivered" and event.id not in killed:
            killed.add(event.id)
            sim.world.instances[-1].crash()
            raise Crashed(event.who)

    sim.world.listeners.append(kill)

    assert talk(sim, sim.start(plan_trip, "Rome")) == expected()
    assert world.counts() == ONCE
    assert len(killed) == len(ONCE), "after each step"


def test_a_model_that_never_ends_is_stopped() -> None:
    app.provide(World())
    sim = Simulation(app)
    handle = sim.start(plan_trip, "Rome", most=3)
    talk(sim, handle)

    assert handle.result() == expected()[:8]


PAGE = "a long page " * 50_000
"""More than a record may carry itself: kept beside the store, by reference."""


def prepare(folder: Path) -> None:
    if "big" in folder.name:
        app.provide(Web(PAGE))


def test_processes_killed_again_and_again_over_http_read_a_large_page_once(tmp_path: Path) -> None:
    requires_component("starlette", hint="pip install -e '.[dev]'")
    folder = tmp_path / "big"
    world = World(folder)

    def life(kill: tuple[str, int]) -> bool:
        return run_process(__name__, "plan_trip", "Rome", id="trip", folder=folder, kill_at=kill).killed

    assert life(("suspended", 1)), "it asks where from"
    asyncio.run(reply(folder))
    assert life(("delivered", 4)), "the page is being read"
    assert life(("suspended", 1)), "it asks for a hotel"
    asyncio.run(reply(folder))
    assert life(("suspended", 1)), "it asks whether to book"
    asyncio.run(reply(folder))
    result = run_process(__name__, "plan_trip", "Rome", id="trip", folder=folder).result

    assert result == [asdict(one) for one in expected(PAGE)]
    assert world.counts() == ONCE
    assert len(list((folder / "store.db.blobs").rglob("*"))) > 1


async def reply(folder: Path) -> None:
    """The traveller looks what is asked, and answers."""
    import httpx

    from everstep.http import asgi

    async with Runtime(app, f"sqlite:///{folder / 'store.db'}") as runtime:
        transport = httpx.ASGITransport(app=asgi(runtime.client, app))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            found = (await http.get("/promises?state=pending&roots=false&prefix=trip.")).json()["promises"]
            open_ones = [one for one in found if "question" in one["tags"]]
            assert len(open_ones) == 1
            answer = ANSWERS[open_ones[0]["tags"]["question"]]
            settled = await http.post(f"/promises/{open_ones[0]['id']}/resolve", json={"value": answer})
            assert settled.status_code == 200


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, plan_trip, "Rome", 2, result=expected()[:6], settle={"{id}.2": "Basel"})
