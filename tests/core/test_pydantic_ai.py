"""pydantic-ai's agents in a workflow: their own loop, with every request and every tool a step of the record."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.components import requires_component
from tests.core.endpoint_support import completion, served

requires_component("pydantic_ai", hint="pip install 'everstep[pydantic-ai]'")

from pydantic import BaseModel  # noqa: E402
from pydantic_ai import Agent, FunctionToolset, ModelRetry, RunContext, UserError  # noqa: E402
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart  # noqa: E402
from pydantic_ai.models.function import FunctionModel  # noqa: E402

from everstep import App, Context, Retry, Runtime  # noqa: E402
from everstep.models.pydantic_ai import run  # noqa: E402
from everstep.testing import Simulation, crash_everywhere  # noqa: E402

app = App("weather")
counts: Counter[str] = Counter()
fails: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def fresh() -> None:
    counts.clear()
    fails.clear()


def happen(what: str) -> None:
    counts[what] += 1
    if fails[what]:
        fails[what] -= 1
        raise ConnectionError(what)


async def scripted(messages: list[Any], info: Any) -> ModelResponse:
    """Asks for two cities at once, then says what it heard."""
    happen(f"request {len(messages)}")
    heard = [part for message in messages for part in message.parts]
    results = [part.content for part in heard if part.part_kind == "tool-return" and isinstance(part.content, dict)]
    asked_again = "there is no such city" in str(heard)
    if not results and not asked_again:
        return ModelResponse(parts=[ToolCallPart("weather", {"city": city}) for city in ("Basel", "Nowhere")])
    if asked_again and len(messages) == 3:
        return ModelResponse(parts=[ToolCallPart("weather", {"city": "Rome"})])
    return ModelResponse(parts=[TextPart(" and ".join(f"{one['city']} {one['degrees']}" for one in results))])


agent: Agent[str, str] = Agent(FunctionModel(scripted), deps_type=str, name="weather")


class Weather(BaseModel):
    city: str
    degrees: str


@agent.tool
async def weather(ctx: RunContext[str], city: str) -> Weather:
    happen(f"tool {city}")
    if city == "Nowhere":
        raise ModelRetry("there is no such city")
    return Weather(city=city, degrees=f"20 {ctx.deps}")


@app.workflow
async def ask(ctx: Context, question: str) -> str:
    result = await run(ctx, agent, question, deps="C", retry=Retry(attempts=3, first=0.1))
    return str(result.output)


ANSWER = "Basel 20 C and Rome 20 C"
ONCE = {"request 1": 1, "request 3": 1, "request 5": 1, "tool Basel": 1, "tool Nowhere": 1, "tool Rome": 1}


@pytest.mark.parametrize("mode", ["rows", "queue"])
@pytest.mark.parametrize("steps", [None, 1])
def test_requests_and_tools_are_steps_and_a_replay_makes_none(mode: Any, steps: int | None) -> None:
    sim = Simulation(app, mode=mode, steps_per_invocation=steps, cache=0)
    handle = sim.start(ask, "How is the weather?")

    assert sim.run(handle) == ANSWER
    assert counts == ONCE
    names = [one.name for one in handle.tree().walk() if one.kind == "step"]
    assert sorted(set(names)) == ["model function:scripted:", "tool weather"]
    assert len(names) == len(ONCE)


@pytest.mark.parametrize("what", ONCE)
def test_what_fails_is_tried_again_alone(what: str) -> None:
    fails[what] = 2
    sim = Simulation(app)

    assert sim.run(sim.start(ask, "How is the weather?")) == ANSWER
    assert counts == {**ONCE, what: 3}


def test_what_fails_for_good_fails_the_run_under_its_own_type() -> None:
    fails["request 3"] = 3
    sim = Simulation(app)

    with pytest.raises(ConnectionError, match="request 3"):
        sim.run(sim.start(ask, "How is the weather?"))


def test_it_survives_a_crash_at_every_point() -> None:
    report = crash_everywhere(
        app, ask, "How is the weather?", modes=("queue",), steps_per_invocation=None, variants=("crash",)
    )

    assert report.result == ANSWER
    assert max(report.executions.values()) <= 2


def test_outside_of_a_simulation_tools_may_block_and_output_may_have_a_type(tmp_path: Path) -> None:
    def answer(messages: list[Any], info: Any) -> ModelResponse:
        """A blocking model; pydantic-ai runs it in a thread."""
        if len(messages) == 1:
            return ModelResponse(parts=[ToolCallPart("measure", {})])
        output = info.output_tools[0].name
        return ModelResponse(parts=[ToolCallPart(output, {"city": "Basel", "degrees": "20"})])

    typed = Agent(output_type=Weather)
    local = App("typed")
    more: FunctionToolset[Any] = FunctionToolset()

    @more.tool_plain
    def measure() -> str:
        return "20"

    @local.workflow
    async def look(ctx: Context) -> Weather:
        result = await run(ctx, typed, "Basel?", model=FunctionModel(answer), toolsets=[more])
        return result.output  # type: ignore[no-any-return]

    async def story() -> Weather:
        for _ in range(2):
            async with Runtime(local, f"sqlite:///{tmp_path / 'db'}") as runtime:
                found: Weather = await (await runtime.run(look, id="l")).result(timeout=0)
        return found

    assert asyncio.run(story()) == Weather(city="Basel", degrees="20")


def test_a_vendors_client_asks_over_http_and_a_replay_asks_nothing(tmp_path: Path) -> None:
    requires_component("openai", hint="pip install 'everstep[openai]'")
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    local = App("remote")
    tides: Agent[None, str] = Agent(name="tides")

    @tides.tool_plain
    def moon() -> str:
        happen("tool moon")
        return "full"

    with served((200, completion(CALLS_MOON)), (200, completion({"content": "High."}))) as endpoint:
        model = OpenAIChatModel("m", provider=OpenAIProvider(base_url=f"{endpoint.url}/v1", api_key="k"))

        @local.workflow
        async def ask_about(ctx: Context, question: str) -> str:
            return (await run(ctx, tides, question, model=model)).output

        async def story() -> list[str]:
            answers = []
            for _ in range(2):
                async with Runtime(local, f"sqlite:///{tmp_path / 'db'}") as runtime:
                    handle = await runtime.run(ask_about, "How is the tide?", id="t")
                    answers.append(await handle.result(timeout=0))
            return answers

        assert asyncio.run(story()) == ["High.", "High."]

    assert [path for path, _, _ in endpoint.requests] == ["/v1/chat/completions"] * 2
    assert endpoint.requests[1][1]["messages"][-1] == {"role": "tool", "tool_call_id": "c1", "content": "full"}
    assert counts == {"tool moon": 1}


CALLS_MOON = {"tool_calls": [{"id": "c1", "type": "function", "function": {"name": "moon", "arguments": "{}"}}]}


def test_an_agent_without_a_model_says_so() -> None:
    silent = Agent()
    local = App("silent")

    @local.workflow
    async def ask_nobody(ctx: Context) -> str:
        return str((await run(ctx, silent, "Hello?")).output)

    sim = Simulation(local)
    with pytest.raises(UserError, match="no model"):
        sim.run(sim.start(ask_nobody))
