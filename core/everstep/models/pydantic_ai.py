"""Agents of pydantic-ai inside workflows: every request to their model and every call of a tool is a step.

The agent's loop runs in the workflow's body, and again on a replay; what it gets from outside then comes from the
record. Its tools are ordinary functions with their `RunContext`, and may block (but not in a `Simulation`, which has no
threads). What a tool returns is stored, and reaches the model, as JSON. Streaming is not offered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from pydantic_ai import Agent, AgentRunResult, ModelRetry, RunContext, UserError
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset
from pydantic_core import to_jsonable_python

from everstep.retry import Retry

if TYPE_CHECKING:
    from everstep.context import Context

__all__ = ["run"]

_AGAIN = Retry(attempts=5, first=1.0, give_up_on=(UserError,))


async def run(
    ctx: Context, agent: Agent[Any, Any], prompt: Any = None, *, retry: Retry = _AGAIN, **options: Any
) -> AgentRunResult[Any]:
    """`agent.run(prompt, **options)` with every request and every tool as a step of the workflow.

    Args:
        retry: the policy of each request and each tool. A `ModelRetry` that a tool raises goes to the model, as ever.
        options: of `Agent.run`; `model` and `toolsets` are of this run, and durable too.

    Raises:
        As `Agent.run`; and what a step raised once its policy gave up.
    """
    model = options.pop("model", None) or agent.model
    if model is None:
        raise UserError("the agent has no model; give it one, or pass model=")
    toolsets = [*agent.toolsets, *options.pop("toolsets", ())]
    durable = [_DurableToolset(one, ctx, retry) for one in toolsets]
    with agent.override(model=_DurableModel(model, ctx, retry), toolsets=durable, tools=[]):
        return await agent.run(prompt, **options)


async def _step(ctx: Context, retry: Retry, name: str, act: Callable[[], Awaitable[Any]]) -> Any:
    """What `act` gives, recorded under a name. It is a closure: its process is the one whose body asks for it."""

    async def step() -> Any:
        return await act()

    step.__name__ = name
    return await ctx.options(retry=retry).run(step)


class _DurableModel(WrapperModel):
    def __init__(self, wrapped: Any, ctx: Context, retry: Retry) -> None:
        super().__init__(wrapped)
        self._ctx = ctx
        self._retry = retry

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        async def act() -> Any:
            response = await self.wrapped.request(messages, model_settings, model_request_parameters)
            return ModelMessagesTypeAdapter.dump_python([response], mode="json")

        stored = await _step(self._ctx, self._retry, f"model {self.model_name}", act)
        (response,) = ModelMessagesTypeAdapter.validate_python(stored)
        assert isinstance(response, ModelResponse)
        return response


class _DurableToolset(WrapperToolset[Any]):
    def __init__(self, wrapped: AbstractToolset[Any], ctx: Context, retry: Retry) -> None:
        super().__init__(wrapped)
        self._ctx = ctx
        self._retry = retry

    async def for_run(self, ctx: RunContext[Any]) -> AbstractToolset[Any]:
        return _DurableToolset(await self.wrapped.for_run(ctx), self._ctx, self._retry)

    async def for_run_step(self, ctx: RunContext[Any]) -> AbstractToolset[Any]:
        return _DurableToolset(await self.wrapped.for_run_step(ctx), self._ctx, self._retry)

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        async def act() -> Any:
            try:
                return {"value": to_jsonable_python(await self.wrapped.call_tool(name, tool_args, ctx, tool))}
            except ModelRetry as again:
                return {"retry": again.message}

        outcome = await _step(self._ctx, self._retry, f"tool {name}", act)
        if "retry" in outcome:
            raise ModelRetry(outcome["retry"])
        return outcome["value"]
