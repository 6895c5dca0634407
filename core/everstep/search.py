"""Searches (protocol: promise.search, task.search, schedule.search), served from the store's own search.

The machine leaves them open. Ours may lag behind writes and is no part of what is linearizable (rule C5). What it shows
is projected at the instant of the request, so a page may come out shorter than its limit, and only a missing cursor
means the end.
"""

from __future__ import annotations

from .ports import Query, Store
from .promise import SCHEDULE_PREFIX, Kind, Record, Schedule, State, TaskState, project
from .protocol import PromiseSearch, Reply, ScheduleSearch, Search, TaskSearch
from .rows import from_row, schedule_from

_PAGES = 8


async def search(store: Store, request: Search, now: int) -> Reply:
    """Answer a search. Raises StoreError."""
    match request:
        case PromiseSearch():
            state, tags, limit, cursor, prefix = request
            query = Query(state=_stored(state), tags=tags, prefix=prefix, limit=limit, cursor=cursor)
            page = await store.find(query)
            shown = [project(from_row(row), now) for row in page.rows if row.kind != Kind.FOLD]
            found = [record for record in shown if request.state is None or record.state is request.state]
            return Reply(200, promises=tuple(found), cursor=page.cursor)
        case TaskSearch():
            return await _tasks(store, request, now)
        case ScheduleSearch():
            within = SCHEDULE_PREFIX + request.prefix
            page = await store.find(
                Query(kinds=(Kind.SCHEDULE,), prefix=within, limit=request.limit, cursor=request.cursor)
            )
            schedules = [schedule_from(row) for row in page.rows]
            return Reply(200, schedules=tuple([one for one in schedules if _tagged(one, request)]), cursor=page.cursor)


def _stored(state: State | None) -> str | None:
    """What a store is asked for: a promise past its deadline may still be stored as pending."""
    if state is None or state in (State.RESOLVED, State.TIMEDOUT):
        return None
    return str(state.value)


def _tagged(schedule: Schedule, request: ScheduleSearch) -> bool:
    return all(schedule.promise_tags.get(name) == value for name, value in request.tags.items())


async def _tasks(store: Store, request: TaskSearch, now: int) -> Reply:
    """Stores do not index task states: pages are read until there are enough, a bounded number to a request."""
    found: list[Record] = []
    cursor = request.cursor
    state = _promise_state(request.state)
    for _ in range(_PAGES):
        page = await store.find(
            Query(state=state, prefix=request.prefix, limit=request.limit - len(found), cursor=cursor)
        )
        for row in page.rows:
            record = project(from_row(row), now)
            if record.task is not None and (request.state is None or record.task.state is request.state):
                found.append(record)
        cursor = page.cursor
        if cursor is None or len(found) == request.limit:
            break
    return Reply(200, tasks=tuple(found), cursor=cursor)


def _promise_state(state: TaskState | None) -> str | None:
    live = state is not None and state is not TaskState.FULFILLED
    return State.PENDING.value if live else None
