"""Rows: a record as flat text and integers, the only thing a store ever sees.

`to_row` and `from_row` are each other's inverse; what a row holds that no record can be is StoreCorrupted, naming the
row. A column says what a store must find rows by; all else is one text (rule B2: small records cost least).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from .clock import NEVER
from .errors import StoreCorrupted
from .promise import (
    LOCAL,
    NO_TAGS,
    SCHEDULE_PREFIX,
    Kind,
    Payload,
    Plan,
    Record,
    Schedule,
    Segment,
    Stamp,
    State,
    Task,
    TaskState,
    Tree,
    due_at,
)


class Row(NamedTuple):
    """A record as a store keeps it. `due` is when somebody must look at it next; `lease` is the task's version while
    it is acquired, so that a fence is one comparison; `rev` counts writes, so that every write changes a field
    (rule F3)."""

    id: str
    branch: str
    kind: str
    state: str
    rev: int
    due: int | None
    lease: int | None
    epoch: int | None
    n: int | None
    param: str | None
    value: str | None
    timeout_at: int | None
    created_at: int
    settled_at: int | None
    tags: str | None
    task: str | None
    rest: str | None


_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


_loads = json.loads


STATES = {state.value: state for state in State}
"""The states of a promise by their names, sooner than the enumeration finds them."""


_TASK_STATES = {state.value: state for state in TaskState}


def is_local(row: Row) -> bool:
    """Whether only the holder of a run writes this record (a completion, a failed attempt, a fold), rather than a
    promise of its own, which others settle."""
    return row.epoch is not None or row.kind in LOCAL


def to_row(record: Record) -> Row:
    """Flatten a record for a store. `rev` is copied: whoever writes it decides the new one."""
    task = record.task
    stamp = record.stamp
    rest: dict[str, Any] | None = None
    if record.callbacks or record.listeners or record.attempt or record.wake or record.param[1] or record.value[1]:
        rest = {}
        if record.callbacks:
            rest["c"] = record.callbacks
        if record.listeners:
            rest["l"] = record.listeners
        if record.attempt:
            rest["a"] = record.attempt
            rest["r"] = record.retry_at
        if record.wake:
            rest["w"] = record.wake
        if record.param.headers:
            rest["ph"] = record.param.headers
        if record.value.headers:
            rest["vh"] = record.value.headers
    return Row(
        record.id,
        record.branch,
        record.kind,
        record.state.value,
        record.rev,
        due_at(record),
        task.version if task is not None and task.state is TaskState.ACQUIRED else None,
        stamp.epoch if stamp is not None else None,
        stamp.n if stamp is not None else None,
        record.param[0],
        record.value[0],
        None if record.timeout_at == NEVER else record.timeout_at,
        record.created_at,
        record.settled_at,
        _dumps(dict(record.tags)) if record.tags else None,
        _task_text(task) if task is not None else None,
        _dumps(rest) if rest else None,
    )


def from_row(row: Row) -> Record:
    """The record a row holds. Raises StoreCorrupted, naming the id, where its text is damaged."""
    try:
        return _from_row(row)
    except _DAMAGED as error:
        raise _corrupted(row, error) from error


_DAMAGED = (ValueError, LookupError, TypeError, AttributeError)


def _corrupted(row: Row, error: Exception) -> StoreCorrupted:
    return StoreCorrupted(f"{row.id}: its row cannot be read: {type(error).__name__}: {error}")


def _from_row(row: Row) -> Record:
    (
        id,
        branch,
        kind,
        state,
        rev,
        _,
        _,
        epoch,
        n,
        param,
        value,
        timeout_at,
        created_at,
        settled_at,
        tags,
        task,
        rest,
    ) = row
    extra: dict[str, Any] = _loads(rest) if rest is not None else {}
    return Record(
        id,
        STATES[state],
        kind,
        branch,
        Payload(param, extra.get("ph", NO_TAGS)),
        Payload(value, extra.get("vh", NO_TAGS)),
        _loads(tags) if tags is not None else NO_TAGS,
        NEVER if timeout_at is None else timeout_at,
        created_at,
        settled_at,
        tuple(extra.get("c", ())),
        tuple(extra.get("l", ())),
        _task_from(task) if task is not None else None,
        Stamp(epoch, n) if epoch is not None and n is not None else None,
        extra.get("a", 0),
        extra.get("r"),
        extra.get("w"),
        rev,
    )


def _task_text(task: Task) -> str:
    data: dict[str, Any] = {"s": task.state.value, "v": task.version}
    if task.pid is not None:
        data["p"] = task.pid
    if task.ttl is not None:
        data["t"] = task.ttl
    if task.expires_at is not None:
        data["e"] = task.expires_at
    if task.retry_at is not None:
        data["r"] = task.retry_at
    if task.resumes:
        data["u"] = task.resumes
    if task.tree is not None:
        data["w"] = task.tree
    if task.timers:
        data["i"] = task.timers
    if task.foreign:
        data["f"] = task.foreign
    if task.poll_at is not None:
        data["o"] = task.poll_at
    if task.segments:
        data["h"] = task.segments
    if task.generation != 1:
        data["g"] = task.generation
    if task.carried is not None:
        data["c"] = [task.carried.data, dict(task.carried.headers)]
    if task.deaths:
        data["d"] = task.deaths
    if task.reason is not None:
        data["x"] = task.reason
    if task.planned is not None:
        data["k"] = task.planned
    if task.offers:
        data["n"] = task.offers
    return _dumps(data)


def _task_from(text: str) -> Task:
    data = _loads(text)
    get = data.get
    carried = get("c")
    tree = get("w")
    plan = get("k")
    return Task(
        _TASK_STATES[data["s"]],
        data["v"],
        get("p"),
        get("t"),
        get("e"),
        get("r"),
        tuple(get("u", ())),
        _tree_from(tree) if tree is not None else None,
        tuple([(id, at) for id, at in get("i", ())]),
        tuple([(id, at) for id, at in get("f", ())]),
        get("o"),
        tuple([Segment(epoch, start, tuple(inbox), at) for epoch, start, inbox, at in get("h", ())]),
        get("g", 1),
        Payload(carried[0], carried[1]) if carried is not None else None,
        get("d", 0),
        get("x"),
        Plan(plan[0], tuple(plan[1]), tuple(plan[2])) if plan is not None else None,
        get("n", 0),
    )


def _tree_from(data: Any) -> Tree:
    return data if isinstance(data, str) else (data[0], *[_tree_from(part) for part in data[1:]])


def schedule_row(schedule: Schedule) -> Row:
    """A schedule as a row of kind `schedule`, under an id no promise of a user has."""
    body = {
        "cron": schedule.cron,
        "id": schedule.promise_id,
        "timeout": schedule.promise_timeout,
        "headers": dict(schedule.promise_param.headers),
        "tags": dict(schedule.promise_tags),
        "next": schedule.next_run_at,
        "last": schedule.last_run_at,
        "wake": schedule.wake,
    }
    return Row(
        SCHEDULE_PREFIX + schedule.id,
        "",
        Kind.SCHEDULE,
        State.PENDING.value,
        schedule.rev,
        schedule.next_run_at,
        None,
        None,
        None,
        schedule.promise_param.data,
        None,
        None,
        schedule.created_at,
        None,
        None,
        None,
        _dumps(body),
    )


def schedule_from(row: Row) -> Schedule:
    """The schedule a row of kind `schedule` holds. Raises StoreCorrupted, naming the id, where its text is damaged."""
    try:
        body = _loads(row.rest or "{}")
        return Schedule(
            row.id.removeprefix(SCHEDULE_PREFIX),
            body["cron"],
            body["id"],
            body["timeout"],
            Payload(row.param, body["headers"]),
            body["tags"],
            row.created_at,
            body["next"],
            body["last"],
            body["wake"],
            row.rev,
        )
    except _DAMAGED as error:
        raise _corrupted(row, error) from error


def records(rows: Sequence[Row]) -> dict[str, Record]:
    """Rows as records by id."""
    return {row.id: from_row(row) for row in rows}
