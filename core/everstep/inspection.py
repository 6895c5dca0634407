"""Records as people and machines look at them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .clock import NEVER, to_datetime
from .codec import Codec
from .errors import DecodeError, InvalidArgument, NotFound
from .folding import folded_records
from .operation import decode_call
from .ports import Query
from .promise import Kind, Record, Schedule, State, TaskState, due_at, leaves, project
from .recording import ERROR
from .rows import from_row
from .views import PromiseView, TreeView

if TYPE_CHECKING:
    from .client import Client


async def view_of(record: Record, codec: Codec) -> PromiseView:
    """A record as a view. What cannot be decoded here (no key) shows as an error text instead of the value."""
    name = ""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    value: Any = None
    error: dict[str, Any] | None = None
    try:
        stored = codec.decode(await codec.internalize(record.param))
        call = decode_call(stored)
        if call is not None:
            name, args, kwargs, _ = call
        elif stored is not None:
            args = [stored]
    except DecodeError as problem:
        name, args = "?", [str(problem)]
    try:
        decoded = codec.decode(await codec.internalize(record.value))
    except DecodeError as problem:
        decoded = str(problem)
    if record.state is State.RESOLVED:
        value = decoded
    elif record.state is State.CANCELED:
        error = {"type": "PromiseCanceled", "message": f"{record.id} was cancelled"}
    elif record.state is State.TIMEDOUT:
        error = {"type": "PromiseTimedOut", "message": f"{record.id} reached its deadline"}
    elif record.state is State.REJECTED:
        error = decoded if isinstance(decoded, dict) else {"type": "Failed", "message": str(decoded)}
    elif ERROR in record.tags:
        error = {"type": "retrying", "message": codec.unseal(record.tags[ERROR])}
    task = record.task
    return PromiseView(
        id=record.id,
        state=record.state.value,
        kind=record.kind,
        name=name,
        args=list(args),
        kwargs=dict(kwargs),
        value=value,
        error=error,
        created_at=record.created_at,
        settled_at=record.settled_at,
        timeout_at=None if record.timeout_at == NEVER else record.timeout_at,
        tags=dict(record.tags),
        task=task.state.value if task is not None else None,
        version=task.version if task is not None else 0,
        generation=task.generation if task is not None else 1,
        attempt=record.attempt,
        waiting_for=leaves(task.tree) if task is not None and task.tree is not None else [],
        due_at=record.retry_at if record.retry_at is not None and record.pending else due_at(record),
        reason=codec.unseal(task.reason) if task is not None and task.reason is not None else None,
    )


def timer_views(record: Record, now: int, known: Iterable[str] = ()) -> list[PromiseView]:
    """The timers that live inside a task's record, as promises of their own (rule B1)."""
    task = record.task
    if task is None:
        return []
    present = set(known)
    views: list[PromiseView] = []
    for segment in task.segments:
        for id in segment.inbox:
            if id not in present:
                present.add(id)
                views.append(_timer(id, record, segment.at, segment.at))
    for id, at in task.timers:
        if id not in present and task.state is TaskState.SUSPENDED:
            present.add(id)
            views.append(_timer(id, record, at, at if at <= now else None))
    return views


def timer_view(record: Record, id: str, now: int) -> PromiseView | None:
    """One timer of a task's record."""
    return next((view for view in timer_views(record, now) if view.id == id), None)


def _timer(id: str, record: Record, at: int, settled_at: int | None) -> PromiseView:
    task = record.task
    assert task is not None
    created = max((segment.at for segment in task.segments if segment.at < at), default=record.created_at)
    return PromiseView(
        id=id,
        state=(State.PENDING if settled_at is None else State.RESOLVED).value,
        kind=Kind.TIMER,
        created_at=min(created, at),
        settled_at=settled_at,
        timeout_at=at,
        tags={"resonate:timer": "true"},
        due_at=at if settled_at is None else None,
    )


async def tree_of(client: Client, id: str) -> TreeView:
    """A promise and everything its execution created."""
    now = client.clock.now()
    views: dict[str, PromiseView] = {}
    pending = [id]
    seen: set[str] = set()
    while pending:
        branch = pending.pop()
        if branch in seen:
            continue
        seen.add(branch)
        rows = await client.store.branch(branch)
        for row in rows:
            if row.kind == Kind.SCHEDULE:
                continue
            if row.kind == Kind.FOLD:
                for folded in folded_records(row):
                    views[folded.id] = await view_of(folded, client.codec)
                continue
            record = project(from_row(row), now)
            views[row.id] = await view_of(record, client.codec)
            if row.task is not None and row.id != branch:
                pending.append(row.id)
        own = next((row for row in rows if row.id == branch), None)
        if own is not None:
            for timer in timer_views(from_row(own), now, views):
                views.setdefault(timer.id, timer)
    if id not in views:
        raise NotFound(f"no promise {id!r}")
    return _grow(id, views)


def _grow(root: str, views: Mapping[str, PromiseView]) -> TreeView:
    children: dict[str, list[str]] = {}
    for id in sorted(views, key=_natural):
        if id == root or not id.startswith(f"{root}."):
            continue
        parent = id
        while True:
            parent = parent.rpartition(".")[0]
            if parent in views:
                break
        children.setdefault(parent, []).append(id)
    shown = dict(views)
    for siblings in children.values():
        _order_timers(siblings, shown)
    nodes: dict[str, TreeView] = {}
    for id in sorted(shown, key=lambda id: -id.count(".")):
        nodes[id] = TreeView(shown[id], [nodes[child] for child in children.get(id, [])])
    return nodes[root]


def _order_timers(siblings: list[str], views: dict[str, PromiseView]) -> None:
    """When a timer began is on no record: not before its invocation, nor before what has a lower number (rule I1).

    A step with a lower number is taken to have ended by then, as it has where a body awaits one thing after another.
    """
    since = 0
    ended: list[int] = []
    for id in siblings:
        view = views[id]
        if view.kind == Kind.TIMER:
            end = view.timeout_at or view.settled_at or view.created_at
            before = bisect_left(ended, end)
            # One that fired while its body was at work has but the instant when it did.
            invoked = view.created_at if view.created_at < end else 0
            begun = max(since, ended[before - 1] if before else 0, invoked) or view.created_at
            view = views[id] = replace(view, created_at=min(begun, end))
        since = max(since, view.created_at)
        if view.settled_at is not None and view.kind in (Kind.STEP, Kind.CHILD, Kind.TIMER):
            insort(ended, view.settled_at)


def _natural(id: str) -> list[tuple[int, int, str]]:
    """`a.2` before `a.10`, and generations after the numbers."""
    return [(0, int(part), "") if part.isdecimal() else (1, _generation(part), part) for part in id.split(".")]


def _generation(part: str) -> int:
    return int(part[1:]) if part[:1] == "g" and part[1:].isdecimal() else 0


async def search(
    client: Client,
    state: str | None,
    tags: Mapping[str, str],
    prefix: str,
    roots: bool,
    limit: int,
    cursor: str | None,
) -> tuple[list[PromiseView], str | None]:
    """Promises that match, as views."""
    if state is not None and state not in {known.value for known in State} | {"halted"}:
        known = ", ".join([*(known.value for known in State), "halted"])
        raise InvalidArgument(f"state={state!r}: one of {known}")
    if not 1 <= limit <= 1000:
        raise InvalidArgument(f"limit={limit!r}: from 1 to 1000")
    now = client.clock.now()
    stored = State.PENDING.value if state == "halted" else state
    # What a schedule starts is the top of a tree although its id has a dot: it is found by what stands before that.
    kinds = (Kind.ROOT,) if roots and "." in prefix else ()
    roots = roots and not kinds
    found: list[PromiseView] = []
    while True:
        query = Query(stored, tags, prefix, roots, kinds, limit=limit - len(found), cursor=cursor)
        page = await client.store.find(query)
        for row in page.rows:
            view = await view_of(project(from_row(row), now), client.codec)
            # A deadline may have passed since the row was written.
            if state is None or (view.state == stored and (state != "halted" or view.halted)):
                found.append(view)
        cursor = page.cursor
        if cursor is None or len(found) >= limit:
            return found, cursor


async def schedule_view(schedule: Schedule, codec: Codec) -> dict[str, Any]:
    """A schedule as JSON; the workflow's name is empty where it cannot be read here, or is none of ours."""
    try:
        call = decode_call(codec.decode(await codec.internalize(schedule.promise_param)))
    except DecodeError:
        call = None
    zone, cron = "UTC", schedule.cron
    if cron.startswith(("CRON_TZ=", "TZ=")):
        head, _, cron = cron.partition(" ")
        zone = head.partition("=")[2]
    return {
        "id": schedule.id,
        "workflow": "" if call is None else call.name,
        "cron": cron,
        "timezone": zone,
        "next_run_at": schedule.next_run_at,
        "next_run": to_datetime(schedule.next_run_at).isoformat(),
        "last_run_at": schedule.last_run_at,
        "created_at": schedule.created_at,
    }
