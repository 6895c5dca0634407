"""Anthropic's models by its official client library.

Retries are the step's business, so the library makes none: an attempt that is not recorded would cost and not count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from everstep.models import Message, Model, ModelError, ToolCall, refusal
from everstep.models import Tool as OfferedTool

__all__ = ["Anthropic"]


class Anthropic(Model):
    """A model of Anthropic's messages API.

    Args:
        model: its name there.
        max_tokens: of an answer.
        base_url: of the endpoint; Anthropic's by default.
        api_key: ANTHROPIC_API_KEY by default.
        timeout: seconds for an answer.
        options: passed on with each request (`temperature`, `thinking`, ...).

    Raises:
        ImportError: the library is missing; `pip install 'everstep[anthropic]'` brings it.
    """

    def __init__(
        self,
        model: str,
        *,
        max_tokens: int = 4096,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 120.0,
        **options: Any,
    ) -> None:
        self.model = model
        self._options = {"max_tokens": max_tokens, **options}
        self._settings: dict[str, Any] = {"base_url": base_url, "api_key": api_key, "timeout": timeout}
        self._clients: tuple[Any, Any] = (None, None)

    def _client(self) -> Any:
        """The client of the loop that runs now: connections do not outlive theirs."""
        loop = asyncio.get_running_loop()
        if self._clients[0] is not loop:
            try:
                import anthropic
            except ImportError as error:
                raise ImportError(
                    "everstep.models.anthropic needs anthropic: pip install 'everstep[anthropic]'"
                ) from error
            self._clients = (loop, anthropic.AsyncAnthropic(max_retries=0, **self._settings))
        return self._clients[1]

    async def reply(self, messages: Sequence[Message], tools: Sequence[OfferedTool] = ()) -> Message:
        client = self._client()
        import anthropic

        request: dict[str, Any] = {"model": self.model, "messages": _spoken(messages)}
        told = "\n\n".join(one.text for one in messages if one.role == "system")
        if told:
            request["system"] = told
        if tools:
            request["tools"] = [
                {"name": one.name, "description": one.about, "input_schema": one.parameters} for one in tools
            ]
        try:
            answer = await client.messages.create(**request, **self._options)
        except anthropic.APIStatusError as error:
            raise refusal(str(error), error.status_code) from error
        except anthropic.APIError as error:
            raise ModelError(str(error)) from error
        text = "".join(block.text for block in answer.content if block.type == "text")
        calls = [ToolCall(one.id, one.name, dict(one.input)) for one in answer.content if one.type == "tool_use"]
        return Message("assistant", text, calls)


def _spoken(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Turns of user and assistant; the results of tools that were called together are one turn of the user."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        match message.role:
            case "system":
                continue
            case "tool":
                block: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.answers, "content": message.text}
                role, blocks = "user", [block]
            case "assistant":
                role, blocks = "assistant", [{"type": "text", "text": message.text}] if message.text else []
                blocks += [
                    {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
                    for call in message.calls
                ]
            case _:
                role, blocks = "user", [{"type": "text", "text": message.text}]
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns
