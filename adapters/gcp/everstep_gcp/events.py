"""What Google sends as events: CloudEvents (Eventarc, and whoever else speaks it), Pub/Sub's push, Scheduler's ticks.

Each becomes one `Event`. A message of Pub/Sub is of the kind "pubsub" however it came: by a push subscription, whose
name is then its source, or through Eventarc, which names the topic.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from everstep.clock import to_milliseconds
from everstep.errors import InvalidArgument
from everstep.events import Event
from everstep.nesting import loads

_PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
_STRUCTURED = "application/cloudevents+json"
_JOB = "x-cloudscheduler-jobname"
_TICK = "x-cloudscheduler-scheduletime"


def is_cloud_event(headers: Mapping[str, str]) -> bool:
    """Whether a request is a CloudEvent, in either of its two forms; names of headers are in lower case."""
    return "ce-id" in headers or headers.get("content-type", "").partition(";")[0].strip().lower() == _STRUCTURED


def event_of(headers: Mapping[str, str], body: bytes) -> Event:
    """The event that a request carries; names of headers are in lower case.

    Raises:
        InvalidArgument: it carries none; the message says what is wrong.
    """
    if is_cloud_event(headers):
        return _cloud_event(headers, body)
    if _JOB in headers:
        tick = headers.get(_TICK, "")
        if not tick:
            raise InvalidArgument("a job of Cloud Scheduler says when it was due, and this one does not")
        return Event(tick, "cron", headers[_JOB], data=_value(body), time=_instant(tick))
    envelope = _object(body, "a push of Pub/Sub")
    subscription = envelope.get("subscription")
    return _message(envelope.get("message"), _last(subscription) if isinstance(subscription, str) else "", {})


def _cloud_event(headers: Mapping[str, str], body: bytes) -> Event:
    if "ce-id" in headers:
        fields: dict[str, Any] = {name[3:]: text for name, text in headers.items() if name.startswith("ce-")}
        data = _value(body)
    else:
        fields = _object(body, "a CloudEvent")
        data = fields.pop("data", None)
        if "data_base64" in fields:
            data = _value(_decoded(fields.pop("data_base64"), "data_base64"))
    for name in ("id", "source", "type"):
        if not isinstance(fields.get(name), str) or not fields[name]:
            raise InvalidArgument(f"a CloudEvent has an {name!r}, and this one has not")
    if fields["type"] == _PUBLISHED:
        message = data.get("message") if isinstance(data, dict) else None
        return _message(message, _last(fields["source"]), fields)
    time = fields.get("time")
    return Event(
        fields["id"],
        "cloudevent",
        fields["source"],
        fields["type"],
        data,
        {name: value for name, value in fields.items() if name not in ("id", "source", "type", "time")},
        _instant(time) if isinstance(time, str) else None,
    )


def _message(message: Any, source: str, fields: Mapping[str, Any]) -> Event:
    if not isinstance(message, dict):
        raise InvalidArgument("a push of Pub/Sub has an object 'message', and this one has not")
    id = message.get("messageId") or message.get("message_id")
    attributes = message.get("attributes") or {}
    if not isinstance(id, str) or not id:
        raise InvalidArgument("a message of Pub/Sub has a 'messageId', and this one has not")
    if not isinstance(attributes, dict):
        raise InvalidArgument("the attributes of a message of Pub/Sub are an object")
    time = message.get("publishTime") or message.get("publish_time")
    data = message.get("data")
    return Event(
        id,
        "pubsub",
        source,
        str(fields.get("type", "")),
        None if data is None else _value(_decoded(data, "data")),
        {**attributes, **({"orderingKey": message["orderingKey"]} if message.get("orderingKey") else {})},
        _instant(time) if isinstance(time, str) else None,
    )


def _object(body: bytes, what: str) -> dict[str, Any]:
    try:
        found = loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{what} is JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidArgument(f"{what} is an object of JSON, not {type(found).__name__}")
    return found


def _decoded(text: Any, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InvalidArgument(f"{name!r} is base64, and this is not") from None


def _value(raw: bytes) -> Any:
    """JSON where it parses, else text, or bytes where it is no text; None where there is nothing."""
    if not raw:
        return None
    try:
        return loads(raw)
    except (ValueError, RecursionError):
        pass
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _instant(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
        return to_milliseconds(moment) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
