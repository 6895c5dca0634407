"""Language models behind one method, so that a workflow knows no vendor.

A model is called in a step, like everything that reaches outside: its answer is recorded, and a replay asks nothing.
Messages are plain data that a store can keep, and a call of a tool is data as well; the workflow carries it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "Message",
    "Model",
    "ModelError",
    "ModelRefused",
    "Scripted",
    "Tool",
    "ToolCall",
    "assistant",
    "refusal",
    "system",
    "tool",
    "user",
]

Role = Literal["system", "user", "assistant", "tool"]


class ModelError(Exception):
    """The model's service refused or failed, and asking again may help: the step's retry policy decides.

    Attributes:
        status: of HTTP, None where there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ModelRefused(ModelError):
    """The request is wrong (a key, a model's name, too many tokens): asking again changes nothing."""


_AGAIN = (408, 409, 425, 429)
"""Statuses of HTTP below 500 after which asking again may help."""


def refusal(message: str, status: int) -> ModelError:
    """The error that an HTTP status stands for."""
    kind = ModelError if status >= 500 or status in _AGAIN else ModelRefused
    return kind(message, status)


@dataclass(frozen=True)
class ToolCall:
    """A call that the model wants made. `id` is the model's own, and the answer names it."""

    id: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: who speaks; a `tool` message answers the call `answers`.
        calls: of tools that an assistant wants made.
        answers: the id of the call that a tool's message is the result of.
    """

    role: Role
    text: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    answers: str | None = None


@dataclass(frozen=True)
class Tool:
    """A tool that is offered to the model. `parameters` is a JSON schema of an object."""

    name: str
    about: str = ""
    parameters: dict[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


class Model:
    """A language model; a plain class, so that `ctx.dependency(Model)` finds whichever was provided."""

    async def reply(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Message:
        """The assistant's next message.

        Raises:
            ModelRefused: asking again changes nothing; a step's policy gives up on it (`give_up_on=`).
            ModelError: the service failed; asking again may help.
        """
        raise NotImplementedError(f"{type(self).__name__} has no reply()")


def system(text: str) -> Message:
    return Message("system", text)


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str = "", *calls: ToolCall) -> Message:
    return Message("assistant", text, list(calls))


def tool(call: ToolCall, text: str) -> Message:
    """The result of a call."""
    return Message("tool", text, answers=call.id)


Answer = str | Message
Script = Callable[[Sequence[Message], Sequence[Tool]], Answer]


class Scripted(Model):
    """A model for tests that needs no network: what it says is a function of what it is asked.

    Args:
        script: a function of the messages and the tools; or answers by a text that the last message contains, of which
            the first that fits is taken.

    Raises (by `reply`):
        LookupError: no answer fits; the message names what was asked.
    """

    def __init__(self, script: Script | Mapping[str, Answer]) -> None:
        self._script = script
        self.asked: list[Sequence[Message]] = []

    async def reply(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Message:
        self.asked.append(list(messages))
        answer = self._answer(messages, tools)
        return assistant(answer) if isinstance(answer, str) else answer

    def _answer(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Answer:
        if not isinstance(self._script, Mapping):
            return self._script(messages, tools)
        last = messages[-1].text if messages else ""
        for text, answer in self._script.items():
            if text in last:
                return answer
        raise LookupError(f"the script has no answer to {last!r}")
