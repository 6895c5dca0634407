"""Records of the protocol as JSON objects, and payloads to and from the wire.

On the wire a payload's data is base64. What decodes to text, and back to the same base64, is stored as that text, so
that a Python workflow and a client in another language read each other's values; anything else is stored as it came,
marked by a header that never leaves again. So every payload comes back exactly as it went in, but for two that the
official SDKs write in another way than we do, where they are the ones to read it: the call of a function that they are
to carry out, and the failure of one that we did.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from .nesting import loads
from .operation import decode_call
from .promise import NO_TAGS, TARGET, Kind, Payload, Record, Schedule, State, Tags

OPAQUE = "everstep:opaque"
OURS = "everstep://"
"""What the target of a run of ours begins with; any other is carried out by a client of the protocol."""


def promise_json(record: Record) -> dict[str, Any]:
    """A promise record of the protocol."""
    data: dict[str, Any] = {
        "id": record.id,
        "state": record.state.value,
        "param": to_wire(_call(record)),
        "value": to_wire(_failure(record)),
        "tags": dict(record.tags),
        "timeoutAt": record.timeout_at,
        "createdAt": record.created_at,
    }
    if record.settled_at is not None:
        data["settledAt"] = record.settled_at
    return data


def task_json(record: Record) -> dict[str, Any]:
    """A task record of the protocol; `resumes` is the count."""
    task = record.task
    assert task is not None
    data: dict[str, Any] = {
        "id": record.id,
        "state": task.state.value,
        "version": task.version,
        "resumes": len(task.resumes),
    }
    if task.ttl is not None:
        data["ttl"] = task.ttl
    if task.pid is not None:
        data["pid"] = task.pid
    return data


def schedule_json(schedule: Schedule) -> dict[str, Any]:
    """A schedule record of the protocol."""
    data: dict[str, Any] = {
        "id": schedule.id,
        "cron": schedule.cron,
        "promiseId": schedule.promise_id,
        "promiseTimeout": schedule.promise_timeout,
        "promiseParam": to_wire(schedule.promise_param),
        "promiseTags": dict(schedule.promise_tags),
        "createdAt": schedule.created_at,
        "nextRunAt": schedule.next_run_at,
    }
    if schedule.last_run_at is not None:
        data["lastRunAt"] = schedule.last_run_at
    return data


def _call(record: Record) -> Payload:
    """The call that a client of an official SDK is asked to carry out, as it expects one."""
    param = record.param
    target = record.tags.get(TARGET, OURS)
    if record.kind == Kind.FOREIGN or target.startswith(OURS) or param.headers or not param.data:
        return param
    call = decode_call(_loads(param.data))
    if call is None:
        return param
    data: dict[str, Any] = {"func": call.name, "args": call.args, "version": call.version}
    if call.kwargs:
        data["kwargs"] = call.kwargs
    return Payload(_dumps(data))


def _failure(record: Record) -> Payload:
    """The failure of a run of ours, in a form that becomes an Error with a name and a message elsewhere."""
    value = record.value
    target = record.tags.get(TARGET, "")
    if record.state is not State.REJECTED or not target.startswith(OURS) or value.headers or not value.data:
        return value
    error = _loads(value.data)
    if not isinstance(error, dict) or "type" not in error or "message" not in error or "__type" in error:
        return value
    return Payload(_dumps({"__type": "error", "name": error["type"], **error}))


def _loads(text: str) -> Any:
    try:
        return loads(text)
    except (ValueError, RecursionError):
        return None


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def from_wire(data: str | None, headers: Tags = NO_TAGS) -> Payload:
    """A payload as it is stored."""
    if OPAQUE in headers:
        headers = {name: text for name, text in headers.items() if name != OPAQUE}
    if data is None:
        return Payload(None, headers)
    try:
        text = base64.b64decode(data, validate=True).decode()
        if base64.b64encode(text.encode()).decode() == data:
            return Payload(text, headers)
    except (binascii.Error, ValueError):
        pass
    return Payload(data, {**headers, OPAQUE: "1"})


def to_wire(payload: Payload) -> dict[str, Any]:
    """A payload as it is sent."""
    headers = dict(payload.headers)
    opaque = headers.pop(OPAQUE, None) is not None
    value: dict[str, Any] = {}
    if headers:
        value["headers"] = headers
    if payload.data is not None:
        value["data"] = payload.data if opaque else base64.b64encode(payload.data.encode()).decode()
    return value
