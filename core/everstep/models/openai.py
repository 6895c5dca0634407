"""Models behind OpenAI's chat completions, there or at any endpoint of that protocol, by its official client library.

Retries are the step's business, so the library makes none: an attempt that is not recorded would cost and not count.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from everstep.models import Message, Model, ModelError, ToolCall, refusal
from everstep.models import Tool as OfferedTool

__all__ = ["OpenAI"]


class OpenAI(Model):
    """A model of an OpenAI-compatible endpoint.

    Args:
        model: its name there.
        base_url: of the endpoint; OpenAI's, or OPENAI_BASE_URL, by default.
        api_key: OPENAI_API_KEY by default.
        timeout: seconds for an answer.
        options: passed on with each request (`temperature`, `max_completion_tokens`, ...).

    Raises:
        ImportError: the library is missing; `pip install 'everstep[openai]'` brings it.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 120.0,
        **options: Any,
    ) -> None:
        self.model = model
        self._options = options
        self._settings: dict[str, Any] = {"base_url": base_url, "api_key": api_key, "timeout": timeout}
        self._clients: tuple[Any, Any] = (None, None)

    def _client(self) -> Any:
        """The client of the loop that runs now: connections do not outlive theirs."""
        loop = asyncio.get_running_loop()
        if self._clients[0] is not loop:
            try:
                import openai
            except ImportError as error:
                raise ImportError("everstep.models.openai needs openai: pip install 'everstep[openai]'") from error
            self._clients = (loop, openai.AsyncOpenAI(max_retries=0, **self._settings))
        return self._clients[1]

    async def reply(self, messages: Sequence[Message], tools: Sequence[OfferedTool] = ()) -> Message:
        client = self._client()
        import openai

        request: dict[str, Any] = {"model": self.model, "messages": [_spoken(one) for one in messages]}
        if tools:
            request["tools"] = [_offered(one) for one in tools]
        try:
            answer = await client.chat.completions.create(**request, **self._options)
        except openai.APIStatusError as error:
            raise refusal(str(error), error.status_code) from error
        except openai.APIError as error:
            raise ModelError(str(error)) from error
        if not answer.choices:
            raise ModelError("the answer has no choice in it")
        said = answer.choices[0].message
        return Message("assistant", said.content or said.refusal or "", [_call(one) for one in said.tool_calls or []])


def _spoken(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.answers, "content": message.text}
    spoken: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.calls:
        spoken["content"] = message.text or None
        spoken["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call in message.calls
        ]
    return spoken


def _offered(tool: OfferedTool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.about, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _call(call: Any) -> ToolCall:
    """Raises ModelError for arguments that are no JSON object: models do that now and then."""
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except (AttributeError, ValueError):
        arguments = None
    if not isinstance(arguments, dict):
        raise ModelError(f"a call of {getattr(call, 'type', 'a tool')} whose arguments are no JSON object")
    return ToolCall(call.id, call.function.name, arguments)
