"""An agent: a language model that uses tools, and its user, until it has an answer. Every call of the model, every tool
and every word of the user is a checkpoint, so that nothing is asked, done or paid for twice.

Which model it is, the environment says: one behind ANTHROPIC_API_KEY or OPENAI_API_KEY (with OPENAI_BASE_URL for any
other endpoint of that protocol); without a key, a script that needs no network.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from everstep import App, Context, Retry, current_step
from everstep.models import Message, Model, ModelRefused, Scripted, Tool, ToolCall, assistant, system, tool, user

app = App("agent")

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
TOOLS = [
    Tool("time", "The current time, UTC."),
    Tool("count", "How many words a text has.", TEXT),
    Tool("ask", "Ask the user something.", TEXT),
]


def script(messages: Sequence[Message], tools: Sequence[Tool]) -> Message:
    """What a model might do: count the words, look at the clock, answer."""
    match sum(one.role == "assistant" for one in messages):
        case 0:
            return assistant("", ToolCall("1", "count", {"text": messages[1].text}), ToolCall("2", "time"))
        case _:
            count, time = messages[-2].text, messages[-1].text
            return assistant(f"Your {count} words reached me on {time[:10]}. Set a key, and I shall understand them.")


def model() -> Model:
    if os.environ.get("ANTHROPIC_API_KEY"):
        from everstep.models.anthropic import Anthropic

        return Anthropic(os.environ.get("MODEL", "claude-sonnet-4-5"))
    if os.environ.get("OPENAI_API_KEY"):
        from everstep.models.openai import OpenAI

        return OpenAI(os.environ.get("MODEL", "gpt-5-mini"))
    return Scripted(script)


app.provide(model())


@app.step(retry=Retry(attempts=5, first=1, give_up_on=(ModelRefused,)))
async def think(messages: list[Message]) -> Message:
    return await current_step().dependency(Model).reply(messages, TOOLS)


@app.step
def show(question: str, promise_id: str) -> None:
    print(f"{question}  (everstep resolve {promise_id} '\"...\"')", flush=True)


async def use(ctx: Context, call: ToolCall) -> str:
    match call:
        case ToolCall(name="time"):
            return ctx.now().isoformat()
        case ToolCall(name="count", arguments={"text": text}):
            return str(len(text.split()))
        case ToolCall(name="ask", arguments={"text": question}):
            answer = ctx.promise(tags={"question": question[:200]})
            await ctx.run(show, question, answer.id)
            return str(await answer)
    return f"there is no tool {call.name} that takes {sorted(call.arguments)}"


@app.workflow
async def chat(ctx: Context, request: str, most: int = 20) -> str:
    """Answer a request, asking the model `most` times at the most."""
    messages = [system("Be brief. Use the tools where they help."), user(request)]
    for _ in range(most):
        said = await ctx.run(think, messages)
        if not said.calls:
            return said.text
        messages.append(said)
        for call in said.calls:
            messages.append(tool(call, await use(ctx, call)))
    return f"no answer after {most} steps"
