"""Events from queues, streams, buckets and tables: one shape for all of them, and which workflow each one starts.

A platform delivers an event at least once. What makes it start one run is the run's id: it is derived from the event's
own identity, so a redelivery attaches to what stands. An event may be acknowledged once its starts are durable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import EverstepError, InvalidArgument, InvalidId, PlatformError, UsageError
from .ids import MAX_BYTES, check_root

if TYPE_CHECKING:
    from .client import Client
    from .registry import App, Workflow


class EventRefused(UsageError):
    """An event that no run can ever be started for; the message names the workflow and what is wrong.

    It is not acknowledged: where the platform keeps what failed too often (a dead-letter queue), a person finds it.
    """


@dataclass(frozen=True, slots=True)
class Event:
    """One record of a queue, a stream, a bucket, a table or a topic.

    Attributes:
        id: the platform's identity of the record, the same at every delivery.
        kind: what it came through: "sqs", "kafka", "pubsub", "postgres", ...
        source: the queue, topic, bucket or table, by its name.
        type: what happened, as the platform calls it; "" where it does not say.
        data: the body: JSON where it parses, else text, or bytes where it is no text.
        attributes: the platform's further fields and the sender's headers.
        time: when it happened, in milliseconds; None where the platform does not say.
    """

    id: str
    kind: str
    source: str = ""
    type: str = ""
    data: Any = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    time: int | None = None


class Trigger(NamedTuple):
    """That a kind of event starts a workflow; `App.on` documents the fields."""

    workflow: Workflow[..., Any]
    kind: str
    source: str = "*"
    type: str | None = None
    id: Callable[[Event], str] | None = None
    args: Callable[[Event], Sequence[Any]] | None = None
    when: Callable[[Event], bool] | None = None

    def wants(self, event: Event) -> bool:
        """Whether the event starts this workflow. Raises EventRefused when the user's `when` fails on it."""
        if self.kind != event.kind or not fnmatchcase(event.source, self.source):
            return False
        if self.type is not None and not fnmatchcase(event.type, self.type):
            return False
        return self.when is None or bool(self._ask("when", self.when, event))

    def start(self, event: Event) -> tuple[str, Sequence[Any]]:
        """The run's id and its arguments. Raises EventRefused."""
        chosen = run_id(self.workflow.name, event) if self.id is None else self._ask("id", self.id, event)
        try:
            check_root(chosen, "the run's id")
        except InvalidId as error:
            raise self.refusal(event, error) from error
        args = (event.data,) if self.args is None else self._ask("args", self.args, event)
        if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
            raise self.refusal(event, InvalidArgument(f"args= gave {type(args).__name__}, not a tuple of arguments"))
        return chosen, args

    def _ask(self, name: str, function: Callable[[Event], Any], event: Event) -> Any:
        try:
            return function(event)
        except Exception as error:
            raise self.refusal(event, error, f"{name}= failed: {type(error).__name__}: ") from error

    def refusal(self, event: Event, error: Exception, what: str = "") -> EventRefused:
        """The error that says which event cannot start this workflow, and why."""
        return EventRefused(
            f"{event.kind} event {event.id!r} of {event.source!r} cannot start {self.workflow.name!r}: {what}{error}"
        )


def run_id(workflow: str, event: Event) -> str:
    """The id of the run that an event starts unless the trigger says otherwise: the same at every delivery.

    Readable where the parts allow it; where they hold what an id or its separator may not, a digest tells them apart.
    """
    parts = (workflow, event.source, event.id)
    text = ":".join(parts)
    if not any(char in part for part in parts for char in ".:\0") and len(text.encode()) <= MAX_BYTES:
        return text
    digest = hashlib.sha256("\0".join([str(len(part)) + part for part in parts]).encode()).hexdigest()[:24]
    readable = "".join(char if char not in ".\0" else "-" for char in text)
    return f"{readable.encode()[:400].decode(errors='ignore')}:{digest}"


async def dispatch(client: Client, app: App, event: Event) -> list[str]:
    """Start what an event starts; durable when this returns, and the same event again changes nothing.

    Returns:
        The ids of the runs; none where no trigger wants the event.

    Raises:
        EventRefused: it can never start the workflow that wants it.
        PlatformError: the store or the waker is in trouble; the event must come back.
    """
    started = []
    for trigger in app.triggers:
        if not trigger.wants(event):
            continue
        id, args = trigger.start(event)
        try:
            handle = await client.options(id=id, on_conflict="attach").start(trigger.workflow, *args)
        except PlatformError:
            raise
        except (EverstepError, TypeError, ValueError) as error:
            raise trigger.refusal(event, error) from error
        started.append(handle.id)
    return started
