"""Looking after a store: proving that everything pending will move again, and removing what nobody needs.

At every instant a pending run is exactly one of: leased, due, waiting only for promises that are themselves pending, or
halted (rule W1). `verify` recomputes that from the records and trusts nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from .clock import NEVER
from .errors import StoreCorrupted
from .ids import origin_of
from .kernel.internal import left_to_timers
from .kernel.schedules import ticks_of
from .ports import Commit, Query, Wake
from .promise import Kind, Record, State, TaskState, due_at, leaves, project, retention_of, satisfied
from .rows import Row, from_row, schedule_from
from .views import Problem, SweepReport, VerifyReport

if TYPE_CHECKING:
    from .client import Client

_PAGE = 200
_GRACE = 60_000


async def _rows(client: Client, **wanted: object) -> AsyncIterator[Row]:
    cursor: str | None = None
    while True:
        page = await client.store.find(Query(limit=_PAGE, cursor=cursor, **wanted))  # type: ignore[arg-type]
        for row in page.rows:
            yield row
        cursor = page.cursor
        if cursor is None:
            return


async def verify(client: Client, repair: bool) -> VerifyReport:
    """Check every pending record; with `repair`, make what is stranded due now."""
    checked = 0
    problems: list[Problem] = []
    async for row in _rows(client, state=State.PENDING.value):
        checked += 1
        what = await _problem(client, row)
        if what is None:
            continue
        # A search may lag: judge the record as it stands now.
        fresh = (await client.store.load([row.id])).get(row.id)
        if fresh is None:
            continue
        what = await _problem(client, fresh)
        if what is not None:
            repaired = repair and await _repair(client, fresh)
            problems.append(Problem(row.id, what, repaired))
    return VerifyReport(checked, problems)


async def _problem(client: Client, row: Row) -> str | None:
    try:
        record = from_row(row)
    except StoreCorrupted as error:
        return str(error)
    now = client.clock.now()
    expected = due_at(record)
    if row.due != expected:
        return f"stored as due at {row.due}, but due at {expected}"
    task = record.task
    if task is None:
        return None
    if expected is not None and expected < now - _GRACE and task.state is not TaskState.HALTED:
        return f"overdue for {(now - expected) // 1000} s: nothing delivered its wake-up"
    if task.state is TaskState.SUSPENDED and task.tree is not None:
        return await _stranded(client, record, now)
    return None


async def _stranded(client: Client, record: Record, now: int) -> str | None:
    task = record.task
    assert task is not None
    assert task.tree is not None
    foreign = dict(task.foreign)
    timers = dict(task.timers)
    wanted = [id for id in leaves(task.tree) if id not in timers]
    rows = await client.store.load([foreign.get(id, id) for id in wanted])
    states = {id: State.RESOLVED if at <= now else State.PENDING for id, at in timers.items()}
    for id in wanted:
        row = rows.get(foreign.get(id, id))
        if row is None:
            return f"waits for {id}, which does not exist"
        shown = project(from_row(row), now)
        states[id] = shown.state
        if shown.pending and record.id not in shown.callbacks:
            return f"waits for {id}, which does not know of it"
    if satisfied(task.tree, lambda id: states.get(id, State.PENDING)):
        overdue = [rows[foreign.get(id, id)].settled_at or now for id in wanted if states[id] is not State.PENDING] + [
            at for at in timers.values() if at <= now
        ]
        if max(overdue, default=0) < now - _GRACE:
            return "suspended, but what it waits for is there"
    elif left_to_timers(record, states) is not None:
        return "waits for timers alone, and nobody looks when they come"
    return None


async def _repair(client: Client, row: Row) -> bool:
    """Make a record due now; its own transitions find out what that means."""
    try:
        record = from_row(row)
    except StoreCorrupted:
        return False
    task = record.task
    now = client.clock.now()
    if task is not None and task.state is TaskState.SUSPENDED:
        record_now = record._replace(task=task._replace(state=TaskState.PENDING, retry_at=now, planned=None))
    else:
        record_now = record
    # The writer arms for a due instant that differs from the one before: say that there was none.
    before = record._replace(task=None, timeout_at=NEVER)
    if await client.service.writer.write([(before, record_now)]) is not None:
        return False
    await client.waker.send(Wake(record.id, task.version if task is not None else 0))
    return True


async def sweep(client: Client) -> SweepReport:
    """Send what is overdue again, and remove settled trees past their retention. What cannot be read is left to
    `verify`, which names it: it is overdue for ever, and must not stand before all others."""
    now = client.clock.now()
    fired = 0
    for due in await client.store.due(now - _GRACE, 1000):
        try:
            row = (await client.store.load([due.id])).get(due.id)
            record = from_row(row) if row is not None and row.kind != Kind.SCHEDULE else None
        except StoreCorrupted:
            continue
        if row is not None and row.due is not None and row.due <= now:
            version = record.task.version if record is not None and record.task is not None else 0
            await client.waker.send(Wake(due.id, version))
            fired += 1
    return SweepReport(fired, await _purge(client, now))


async def _purge(client: Client, now: int) -> int:
    """Remove settled trees past their retention. Older generations of a run are removed when it is next loaded."""
    shortest = _shortest_retention(client)
    if shortest is None:
        return 0
    purged = 0
    async for row in _over(client, now - shortest + 1):
        try:
            purged += await _purged(client, from_row(row), now)
        except StoreCorrupted:
            continue
    return purged


async def _over(client: Client, before: int) -> AsyncIterator[Row]:
    """Runs that had settled by then: those with an origin to themselves, and each schedule's, which share one."""
    for state in State:
        if state is not State.PENDING:
            async for row in _rows(client, state=state.value, roots=True, settled_before=before):
                yield row
    async for row in _rows(client, kinds=(Kind.SCHEDULE,)):
        try:
            prefix = ticks_of(schedule_from(row))
        except StoreCorrupted:
            continue
        if "." in prefix:
            async for tick in _rows(client, prefix=prefix, kinds=(Kind.ROOT,), settled_before=before):
                yield tick


async def _purged(client: Client, root: Record, now: int) -> int:
    """Remove a tree if its time has come, the root last: it is what the rest is found by. Raises StoreCorrupted."""
    keep, id = retention_of(root.tags), root.id
    if keep is None or root.callbacks or root.listeners or (root.settled_at or now) + keep > now:
        return 0
    shared = "." in id
    rows = [row async for row in _rows(client, prefix=f"{id}.")] if shared else await client.store.branch(id)
    for other in [root, *map(from_row, rows)]:
        for payload in (other.param, other.value):
            await client.codec.discard(payload, id)
    if not shared:
        return await client.store.delete(id)
    ids = [*[row.id for row in rows], id]
    for at in range(0, len(ids), 90):
        await client.store.commit(Commit(origin_of(id), (), tuple(ids[at : at + 90])))
    return len(ids)


def _shortest_retention(client: Client) -> int | None:
    """Of the App's workflows, in milliseconds; None when nothing is ever to be removed. A client without an App cannot
    know, and looks at everything."""
    if client.app is None:
        return 0
    kept = [workflow.retention for workflow in client.app.every_workflow if workflow.retention is not None]
    return min(kept, default=client.app.retention)
