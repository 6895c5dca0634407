"""What happens without anybody asking: deadlines, leases, dispatch, and the word owed to who waits (internal steps).

Each function re-checks its own condition, so that a step taken early, late or twice changes nothing: an alarm means
"not before". None, or an outcome without a record, means that there is nothing to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from everstep.clock import NEVER
from everstep.promise import TARGET, Record, State, TaskState, due_at, is_ours, project, ready_at, released, satisfied
from everstep.protocol import Execute, Unblock

_SELDOM = 60_000
"""Milliseconds between two offers of a task that nobody takes, at most."""


def time_out(record: Record, now: int) -> Record | None:
    """The promise settled by its deadline, if that has passed; its task is fulfilled with it."""
    shown = project(record, now)
    return shown if shown is not record else None


def expire_lease(record: Record, now: int) -> Record | None:
    """The task pending again, if its lease has ended; never when the promise is past its own deadline."""
    task = record.task
    if (
        task is None
        or task.state is not TaskState.ACQUIRED
        or task.expires_at is None
        or task.expires_at > now
        or not project(record, now).pending
    ):
        return None
    return released(record, task, now)


def dispatch(record: Record, now: int, retry_timeout: int) -> tuple[Record, Execute] | None:
    """Offer a pending task to its target, and again after `retry_timeout` milliseconds until somebody acquires it.

    Each offer in vain doubles that, up to a minute: a task whose workers are all gone costs a write each time. What an
    App carries out is looked for in the store, and found when it is due: there it stays the same.
    """
    task = record.task
    if (
        task is None
        or task.state is not TaskState.PENDING
        or task.retry_at is None
        or task.retry_at > now
        or not project(record, now).pending
    ):
        return None
    target = record.tags.get(TARGET, "")
    later = (
        retry_timeout if is_ours(target) else min(retry_timeout << min(task.offers, 16), max(retry_timeout, _SELDOM))
    )
    again = record._replace(task=task._replace(retry_at=now + later, offers=task.offers + 1))
    return again, Execute(record.id, task.version, target)


NOBODY: Mapping[str, State] = {}


class Resume(str, Enum):
    """What became of a wake-up.

    RESUMED: suspended, now pending. NUDGED: suspended by an engine with its await tree: due now, to be resumed and
    acquired in one write. BUFFERED: alive and not suspended, the trigger recorded. DUPLICATE: recorded already.
    HELD: an engine has it and looks at what it awaits before it suspends (rule W4). UNSATISFIED: its tree still waits
    (W7); with a record where timers are all that it waits for. EXPIRED: past its own deadline (W8). FULFILLED: settled.
    ABSENT: no such task.
    """

    RESUMED = "resumed"
    NUDGED = "nudged"
    BUFFERED = "buffered"
    DUPLICATE = "duplicate"
    HELD = "held"
    UNSATISFIED = "unsatisfied"
    EXPIRED = "expired"
    FULFILLED = "fulfilled"
    ABSENT = "absent"


class Resumed(NamedTuple):
    outcome: Resume
    record: Record | None = None


def engine_task(record: Record) -> bool:
    """Whether the engine made the task's last acquisition, rather than a protocol client."""
    task = record.task
    return task is not None and bool(task.segments) and task.segments[-1].epoch == task.version


def resume(
    awaiter: Record | None, awaited: str | None, now: int, states: Mapping[str, State] = NOBODY, *, nudge: bool = False
) -> Resumed:
    """Wake an awaiter because `awaited` is settled; None where only its timers or its own look say so.

    Args:
        states: of the ids in the awaiter's tree, as of `now`; what is not in it counts as pending.
        nudge: leave an engine's task suspended and make it due, so that it is resumed and acquired in one write.
    """
    task = awaiter.task if awaiter is not None else None
    if awaiter is None or task is None:
        return Resumed(Resume.ABSENT)
    if not awaiter.pending:
        return Resumed(Resume.FULFILLED)
    if not project(awaiter, now).pending:
        return Resumed(Resume.EXPIRED)
    if task.state is TaskState.SUSPENDED:
        if task.tree is not None and not satisfied(task.tree, lambda id: states.get(id, State.PENDING)):
            return Resumed(Resume.UNSATISFIED, left_to_timers(awaiter, states))
        if nudge and task.tree is not None:
            if task.poll_at is not None and task.poll_at <= now:
                return Resumed(Resume.DUPLICATE)
            return Resumed(Resume.NUDGED, awaiter._replace(task=task._replace(poll_at=now)))
        woken = task._replace(
            state=TaskState.PENDING,
            resumes=(awaited,) if awaited is not None else (),
            retry_at=now,
            tree=None,
            poll_at=None,
            planned=None,
        )
        return Resumed(Resume.RESUMED, awaiter._replace(task=woken))
    if awaited is None or awaited in task.resumes:
        return Resumed(Resume.DUPLICATE)
    if engine_task(awaiter) and task.state is not TaskState.HALTED:
        return Resumed(Resume.HELD)
    return Resumed(Resume.BUFFERED, awaiter._replace(task=task._replace(resumes=(*task.resumes, awaited))))


def left_to_timers(record: Record, states: Mapping[str, State]) -> Record | None:
    """A suspended run that now waits for nothing but timers, due when they are; None where it is due by then anyway.

    While a promise of an await tree is pending, its timers alone may not satisfy it and nobody looks when they come;
    whoever settles the promise, or finds it settled, must see to that (rule W1).
    """
    task = record.task
    if task is None or task.state is not TaskState.SUSPENDED or task.tree is None or not task.timers:
        return None
    at = ready_at(task.tree, dict(task.timers), lambda id: states.get(id, State.PENDING))
    due = due_at(record)
    if at >= NEVER or (due is not None and due <= at):
        return None
    return record._replace(task=task._replace(poll_at=at))


def notices(record: Record) -> tuple[Unblock, ...]:
    """What a settled promise owes its listeners."""
    shown = record._replace(callbacks=(), listeners=())
    return () if record.pending else tuple([Unblock(address, shown) for address in record.listeners])


def drained(record: Record, callbacks: tuple[str, ...], listeners: tuple[str, ...]) -> Record:
    """A settled promise without those awaiters and listeners that have been told."""
    return record._replace(
        callbacks=tuple([id for id in record.callbacks if id not in callbacks]),
        listeners=tuple([address for address in record.listeners if address not in listeners]),
    )
