"""A message of a Cloudflare Queue as an event; `@app.on("queue", source=...)` starts a workflow for it."""

from __future__ import annotations

from typing import Any

from everstep.events import Event
from everstep.nesting import loads


def event_of(queue: str, message: Any) -> Event:
    """Normalise a message.

    Args:
        queue: its name, the event's source.
        message: of a batch: `id`, `timestamp`, `attempts`, and a body that is text, bytes or JSON.
    """
    when = getattr(message.timestamp, "getTime", None)
    return Event(
        id=str(message.id),
        kind="queue",
        source=queue,
        data=_plain(message.body),
        attributes={"attempts": int(getattr(message, "attempts", 1))},
        time=int(when()) if when is not None else _milliseconds(message.timestamp),
    )


def _milliseconds(moment: Any) -> int | None:
    stamp = getattr(moment, "timestamp", None)
    return round(stamp() * 1000) if stamp is not None else None


def _plain(body: Any) -> Any:
    """JSON where it parses, else text, or bytes where it is no text."""
    if hasattr(body, "to_py"):
        body = body.to_py()
    if isinstance(body, (bytes, bytearray, memoryview)):
        try:
            body = bytes(body).decode()
        except UnicodeDecodeError:
            return bytes(body)
    if isinstance(body, str):
        try:
            return loads(body)
        except (ValueError, RecursionError):
            return body
    return body
