"""System 47, a chatbot of many turns: each turn is a run of its own, called `<session>/turn-<n>`, and a turn that was
taken is never taken again, however often its request arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Client, Context, Retry, Runtime, current_step
from everstep.models import Message, Model, Scripted, Tool, user
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.components import requires_component
from tests.systems.scaffold import World, did, run_process, survives

app = App("chatbot", retry=Retry(attempts=3, first=0.1))


@app.step
async def answer(conversation: list[Message]) -> Message:
    return await current_step().dependency(Model).reply(conversation)


@app.workflow
async def turn(ctx: Context, history: list[Message], text: str) -> list[Message]:
    """What was said before, the user's text, and the model's answer."""
    conversation = [*history, user(text)]
    return [*conversation, await ctx.run(answer, conversation)]


async def say(client: Client, session: str, number: int, text: str) -> str:
    """Take a turn, and return the id under which its answer will be; the same turn again changes nothing."""
    before = f"{session}/turn-{number - 1}"
    history = await client.handle(before).result(timeout=30) if number > 1 else []
    return (await client.options(id=f"{session}/turn-{number}").start(turn, history, text)).id


SAYS = ["Hello!", "What do you know of tides?", "Which sea has the highest?"]
REPLIES = ["1 message so far", "3 messages so far", "5 messages so far"]


def count_messages(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    did(f"turn {len(messages) // 2 + 1}", heard=[one.text for one in messages])
    return f"{len(messages)} message{'s' if len(messages) > 1 else ''} so far"


app.provide(Scripted(count_messages))


def chat(sim: Simulation, number: int) -> str:
    id = sim.call(lambda client: say(client, "s", number, SAYS[number - 1]))
    return str(sim.run(id)[-1]["text"])


@pytest.mark.parametrize("mode", ["rows", "queue"])
@pytest.mark.parametrize("killed", [False, True])
def test_a_turn_whose_model_fails_once_asks_neither_the_user_nor_earlier_turns_again(mode: Mode, killed: bool) -> None:
    world = app.provide(World(script={"turn 2": ["fail"]}))
    sim = Simulation(app, mode=mode)
    heard = []
    for number in (1, 2, 3):
        heard.append(chat(sim, number))
        if killed:
            sim.kill()

    assert heard == REPLIES
    assert [world.tries(f"turn {number}") for number in (1, 2, 3)] == [1, 2, 1]
    said = world.effects("turn 3")[0]["heard"]
    assert said == [SAYS[0], REPLIES[0], SAYS[1], REPLIES[1], SAYS[2]], "turn 3 hears all of it"


def test_a_turn_taken_again_returns_the_stored_text_and_asks_no_model() -> None:
    world = app.provide(World())
    sim = Simulation(app)
    assert [chat(sim, number) for number in (1, 2, 3)] == REPLIES
    sim.cold()

    assert chat(sim, 2) == REPLIES[1]
    assert [world.tries(f"turn {number}") for number in (1, 2, 3)] == [1, 1, 1]


def test_over_http_a_chat_goes_on_in_another_process(tmp_path: Path) -> None:
    requires_component("starlette", hint="pip install -e '.[dev]'")
    world = app.provide(World(tmp_path))

    async def story() -> None:
        assert await post(tmp_path, 1) == REPLIES[0]
        assert await post(tmp_path, 2) == REPLIES[1]
        assert await post(tmp_path, 2) == REPLIES[1]

    asyncio.run(story())
    assert world.order() == ["turn 1", "turn 2"]

    conversation = [{"role": "user", "text": text} for text in ("a", "b")]
    assert run_process(__name__, "turn", conversation, "c", id="s/turn-9", folder=tmp_path).result[-1]["text"]
    assert world.order() == ["turn 1", "turn 2", "turn 2"]


async def post(folder: Path, number: int) -> str:
    """One request to a chat route, in a service that was just started."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def route(request: Request) -> Response:
        session, turn_number = request.path_params["session"], request.path_params["number"]
        id = await say(runtime.client, session, turn_number, (await request.json())["text"])
        conversation = await runtime.client.handle(id).result(timeout=30)
        return JSONResponse({"text": conversation[-1]["text"]})

    import httpx

    async with Runtime(app, f"sqlite:///{folder / 'store.db'}") as runtime:
        working = asyncio.create_task(runtime.serve())
        site = Starlette(routes=[Route("/chat/{session}/{number:int}", route, methods=["POST"])])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=site), base_url="http://test") as http:
            response = await http.post(f"/chat/s/{number}", json={"text": SAYS[number - 1]})
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return str(response.json()["text"])


def test_a_process_killed_before_the_answer_is_recorded_asks_the_model_again_and_once(tmp_path: Path) -> None:
    world = World(tmp_path, {"turn 1": ["kill"]})
    assert run_process(__name__, "turn", [], "Hello!", id="s/turn-1", folder=tmp_path).killed

    result = run_process(__name__, "turn", [], "Hello!", id="s/turn-1", folder=tmp_path).result
    assert [one["text"] for one in result] == ["Hello!", REPLIES[0]]
    assert world.count("turn 1") == 2


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())
    history: list[Any] = [Message("user", "Hello!"), Message("assistant", REPLIES[0])]
    result = [*history, Message("user", SAYS[1]), Message("assistant", REPLIES[1])]

    survives(app, turn, history, SAYS[1], result=result)
