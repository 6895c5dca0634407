"""Models: the vendors' own client libraries against an endpoint on this machine that speaks their protocols."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everstep import App, Context, Retry, current_step
from everstep.models import (
    Message,
    Model,
    ModelError,
    ModelRefused,
    Scripted,
    Tool,
    ToolCall,
    assistant,
    system,
    tool,
    user,
)
from everstep.testing import Simulation
from tests.components import requires_component
from tests.core.endpoint_support import completion, served

TIME = Tool("time", "The time.", {"type": "object", "properties": {"zone": {"type": "string"}}})
CALL = ToolCall("call_1", "time", {"zone": "UTC"})
TALK = [system("Be brief."), user("What time is it?"), assistant("", CALL), tool(CALL, "noon")]


def function(arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "time", "arguments": arguments}}]}


def said(*content: dict[str, Any]) -> dict[str, Any]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    return {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": list(content),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


def open_ai(url: str) -> Model:
    requires_component("openai", hint="pip install 'everstep[openai]'")
    from everstep.models.openai import OpenAI

    return OpenAI("m", base_url=f"{url}/v1", api_key="key", temperature=0)


def anthropic(url: str) -> Model:
    requires_component("anthropic", hint="pip install 'everstep[anthropic]'")
    from everstep.models.anthropic import Anthropic

    return Anthropic("m", base_url=url, api_key="key", max_tokens=99)


MAKERS = pytest.mark.parametrize("make", [open_ai, anthropic], ids=["openai", "anthropic"])
TEXT = {"open_ai": completion({"content": "Noon."}), "anthropic": said({"type": "text", "text": "Noon."})}
USE = {
    "open_ai": completion(function('{"zone": "UTC"}')),
    "anthropic": said({"type": "tool_use", "id": "call_1", "name": "time", "input": {"zone": "UTC"}}),
}


@MAKERS
def test_an_answer_and_a_call(make: Any) -> None:
    with served((200, USE[make.__name__]), (200, TEXT[make.__name__])) as endpoint:
        model = make(endpoint.url)
        assert asyncio.run(model.reply(TALK[:2], [TIME])) == assistant("", CALL)
        assert asyncio.run(model.reply(TALK, [TIME])) == assistant("Noon."), "in another loop, too"


def test_what_openai_is_asked() -> None:
    with served((200, TEXT["open_ai"])) as endpoint:
        asyncio.run(open_ai(endpoint.url).reply(TALK, [TIME]))
        path, body, headers = endpoint.requests[0]

    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer key"
    arguments = {"name": "time", "arguments": '{"zone": "UTC"}'}
    assert body == {
        "model": "m",
        "temperature": 0,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What time is it?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": arguments}],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "time", "description": "The time.", "parameters": TIME.parameters},
            }
        ],
    }


def test_what_anthropic_is_asked() -> None:
    other = ToolCall("call_2", "time", {})
    talk = [*TALK[:2], assistant("Let me see.", CALL, other), tool(CALL, "noon"), tool(other, "noon too")]
    with served((200, TEXT["anthropic"])) as endpoint:
        asyncio.run(anthropic(endpoint.url).reply(talk, [TIME]))
        path, body, headers = endpoint.requests[0]

    assert path == "/v1/messages"
    assert headers.get("x-api-key") == "key" or headers["authorization"] == "Bearer key"
    assert body == {
        "model": "m",
        "max_tokens": 99,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "What time is it?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "call_1", "name": "time", "input": {"zone": "UTC"}},
                    {"type": "tool_use", "id": "call_2", "name": "time", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": "noon"},
                    {"type": "tool_result", "tool_use_id": "call_2", "content": "noon too"},
                ],
            },
        ],
        "tools": [{"name": "time", "description": "The time.", "input_schema": TIME.parameters}],
    }


@MAKERS
@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_what_is_wrong_with_the_request_is_refused_for_good(make: Any, status: int) -> None:
    with served((status, {"error": {"message": "no"}})) as endpoint:
        with pytest.raises(ModelRefused) as raised:
            asyncio.run(make(endpoint.url).reply(TALK))
        assert raised.value.status == status
        assert len(endpoint.requests) == 1


@MAKERS
@pytest.mark.parametrize("status", [429, 500, 503, None])
def test_what_may_pass_is_an_error_of_another_kind_and_the_library_does_not_ask_again(make: Any, status: Any) -> None:
    with served(None if status is None else (status, {"error": {"message": "later"}})) as endpoint:
        with pytest.raises(ModelError) as raised:
            asyncio.run(make(endpoint.url).reply(TALK))
        assert not isinstance(raised.value, ModelRefused)
        assert raised.value.status == status
        assert len(endpoint.requests) == 1


@pytest.mark.parametrize("arguments", ["{", "[1]", '"text"'])
def test_arguments_that_are_no_object_are_asked_for_again(arguments: str) -> None:
    with served((200, completion(function(arguments)))) as endpoint, pytest.raises(ModelError, match="no JSON object"):
        asyncio.run(open_ai(endpoint.url).reply(TALK))


def test_an_answer_without_a_choice_is_an_error() -> None:
    with (
        served((200, {**TEXT["open_ai"], "choices": []})) as endpoint,
        pytest.raises(ModelError, match="no choice"),
    ):
        asyncio.run(open_ai(endpoint.url).reply(TALK))


@MAKERS
def test_a_step_retries_what_may_pass_and_gives_up_on_what_does_not(make: Any) -> None:
    app = App("model")

    @app.step(retry=Retry(attempts=3, first=0.1, give_up_on=(ModelRefused,)))
    async def think(messages: list[Message]) -> Message:
        return await current_step().dependency(Model).reply(messages)

    @app.workflow
    async def ask(ctx: Context) -> Message:
        return await ctx.run(think, TALK)

    async def later(status: int) -> tuple[Any, int]:
        from everstep import Runtime

        with served((status, {"error": {"message": "no"}}), (200, TEXT[make.__name__])) as endpoint:
            app.provide(make(endpoint.url))
            async with Runtime(app, "memory:") as runtime:
                handle = await runtime.run(ask, id="a")
                try:
                    return await handle.result(), len(endpoint.requests)
                except ModelRefused as error:
                    return str(error) != "", len(endpoint.requests)

    assert asyncio.run(later(503)) == (assistant("Noon."), 2)
    assert asyncio.run(later(401)) == (True, 1)


def test_a_script_answers_by_what_the_last_message_says() -> None:
    model = Scripted({"time": assistant("", CALL), "noon": "It is noon."})

    assert asyncio.run(model.reply(TALK[:2])) == assistant("", CALL)
    assert asyncio.run(model.reply(TALK)) == assistant("It is noon.")
    assert model.asked == [TALK[:2], TALK]
    with pytest.raises(LookupError, match="weather"):
        asyncio.run(model.reply([user("How is the weather?")]))


def test_a_model_without_a_reply_says_so() -> None:
    class Silent(Model):
        pass

    with pytest.raises(NotImplementedError, match="Silent"):
        asyncio.run(Silent().reply([]))


def test_messages_survive_the_store() -> None:
    app = App("messages")

    @app.step
    def echo(messages: list[Message]) -> list[Message]:
        return messages

    @app.workflow
    async def through(ctx: Context, messages: list[Message]) -> list[Message]:
        return await ctx.run(echo, messages)

    sim = Simulation(app)
    assert sim.run(sim.start(through, TALK)) == TALK
