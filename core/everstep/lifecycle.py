"""What the driver does to a task, as pure functions over its record. Each re-checks its own condition.

`None` means that the condition does not hold: the task is another's, or settled, or past its deadline. Where two steps
of the protocol are combined (resume and acquire, lease timeout and acquire), the result is that of the steps next to
each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from .promise import Payload, Plan, Record, Segment, State, Task, TaskState, Tree, halted, project, released, settled


def acquire(
    record: Record,
    now: int,
    pid: str,
    ttl: int,
    inbox: Sequence[str],
    start: int,
    *,
    progressed: bool,
    again: bool = False,
    expired: bool = False,
) -> Record | None:
    """Take a task that is pending, suspended (the caller has found its tree satisfied), or leased past the lease's end.

    Args:
        inbox: what this acquisition delivers first, in order (rule P2.2).
        start: the length of history before it.
        progressed: whether the last holder added to history; if not, it died (an expired lease) once more.
        again: the holder itself moves to its next epoch, to deliver what it has seen.
        expired: the lease counts as ended early, because its holder is known to be dead.
    """
    task = record.task
    if task is None or project(record, now).state is not State.PENDING:
        return None
    deaths = task.deaths
    match task.state:
        case TaskState.PENDING:
            deaths = 0 if progressed else deaths
        case TaskState.SUSPENDED:
            deaths = 0
        case TaskState.ACQUIRED if again:
            deaths = 0
        case TaskState.ACQUIRED if expired or task.expires_at is None or task.expires_at <= now:
            deaths = 0 if progressed else deaths + 1
        case _:
            return None
    version = task.version + 1
    return record._replace(
        task=Task(
            TaskState.ACQUIRED,
            version,
            pid,
            ttl,
            now + ttl,
            segments=(*task.segments, Segment(version, start, tuple(inbox), now)),
            generation=task.generation,
            carried=task.carried,
            deaths=deaths,
            reason=task.reason if deaths else None,
        )
    )


def _held(record: Record, now: int, version: int) -> Task | None:
    task = record.task
    if task is None or task.state is not TaskState.ACQUIRED or task.version != version:
        return None
    return task if project(record, now).state is State.PENDING else None


def suspend(
    record: Record,
    now: int,
    version: int,
    *,
    tree: Tree,
    timers: tuple[tuple[str, int], ...] = (),
    foreign: tuple[tuple[str, str], ...] = (),
    poll_at: int | None = None,
    planned: Plan | None = None,
) -> Record | None:
    """Let go until `tree` is satisfied (protocol: task.suspend, with the callbacks registered at creation)."""
    task = _held(record, now, version)
    if task is None:
        return None
    return record._replace(
        task=task._replace(
            state=TaskState.SUSPENDED,
            pid=None,
            ttl=None,
            expires_at=None,
            tree=tree,
            timers=timers,
            foreign=foreign,
            poll_at=poll_at,
            deaths=0,
            reason=None,
            planned=planned,
        )
    )


def release(record: Record, now: int, version: int, retry_at: int, planned: Plan | None = None) -> Record | None:
    """Let go, due again at `retry_at` (protocol: task.release)."""
    task = _held(record, now, version)
    if task is None:
        return None
    return released(record, task, retry_at, planned)


def put_off(record: Record, now: int, retry_at: int, reason: str) -> Record | None:
    """Let a task that cannot be run for now be due again at `retry_at`, one death nearer to being halted."""
    task = record.task
    if task is None or project(record, now).state is not State.PENDING:
        return None
    if task.state is TaskState.HALTED or task.state is TaskState.FULFILLED:
        return None
    return record._replace(
        task=task._replace(
            state=TaskState.PENDING,
            pid=None,
            ttl=None,
            expires_at=None,
            retry_at=retry_at,
            tree=None,
            timers=(),
            foreign=(),
            poll_at=None,
            deaths=task.deaths + 1,
            reason=reason,
            planned=None,
        )
    )


def heartbeat(record: Record, now: int, version: int) -> Record | None:
    """Extend the lease (protocol: task.heartbeat)."""
    task = _held(record, now, version)
    if task is None:
        return None
    return record._replace(task=task._replace(expires_at=now + (task.ttl or 0)))


def fulfill(record: Record, now: int, version: int, state: State, value: Payload) -> Record | None:
    """Settle the promise with the body's outcome (protocol: task.fulfill)."""
    return settled(record, state, value, now) if _held(record, now, version) is not None else None


def continue_as_new(
    record: Record, now: int, version: int, carried: Payload, *, stay: bool, planned: Plan | None = None
) -> Record | None:
    """Start over under the same id: the next generation, a fresh history (rule I5).

    Args:
        stay: the holder goes on at once under its lease; otherwise the task is due now.
        planned: for a store that acquires by itself, where the holder does not stay.
    """
    task = _held(record, now, version)
    if task is None:
        return None
    segments = (Segment(version, 0, (), now),) if stay else ()
    fresh = task._replace(generation=task.generation + 1, carried=carried, segments=segments, deaths=0, reason=None)
    if not stay:
        fresh = fresh._replace(
            state=TaskState.PENDING, pid=None, ttl=None, expires_at=None, retry_at=now, planned=planned
        )
    return record._replace(task=fresh)


def halt(record: Record, now: int, reason: str) -> Record | None:
    """Stop a run visibly until a person continues it (protocol: task.halt)."""
    task = record.task
    if task is None or project(record, now).state is not State.PENDING or task.state is TaskState.HALTED:
        return None
    return halted(record, task, reason)


def resume_halted(record: Record, now: int) -> Record | None:
    """Set a halted run going again (protocol: task.continue)."""
    task = record.task
    if task is None or project(record, now).state is not State.PENDING or task.state is not TaskState.HALTED:
        return None
    return record._replace(
        task=task._replace(
            state=TaskState.PENDING, retry_at=now, tree=None, timers=(), foreign=(), deaths=0, reason=None
        )
    )
