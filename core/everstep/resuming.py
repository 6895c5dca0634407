"""A resume that a store decides on by itself, in the request that loads: which task it takes, and what is delivered.

Theory. What an acquisition delivers first follows from records alone (rule P2.2): the promises that have settled, and
the timers that have come due, in the order in which they did. Which promises those can be, and how long history is, the
last holder knew when it let go, and wrote down (`Plan`); a task that nobody ever held has no history. So the store can
acquire with the right inbox in the request that loads, and the result is that of a load and a write next to each other.

It keeps its hands off whatever takes more than that: a lease that ended, for its holder may have written what no plan
knows; a child past its deadline that is not written as settled yet; a task that died, or is another's. Those are only
loaded, and the driver decides. Stores that do this in a language of their own are compared with these functions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .lifecycle import acquire
from .ports import Claim
from .promise import LOCAL, TARGET, Record, State, TaskState, leaves, project, satisfied

_NONE: Collection[str] = ()


def candidates(record: Record) -> list[str]:
    """Ids of the children that the next acquisition may have to deliver."""
    task = record.task
    if task is None:
        return []
    named = leaves(task.tree) if task.tree is not None else []
    beside = task.planned.beside if task.planned is not None else ()
    return list(dict.fromkeys([*named, *beside]))


def inbox_of(record: Record, others: Mapping[str, Record], claim: Claim) -> tuple[str, ...] | None:
    """What an acquisition at `claim.now` delivers; None where this does not decide, or where there is nothing to do.

    Args:
        others: the records of `candidates` and of what is awaited in other origins, as far as they exist.
    """
    task = record.task
    now = claim.now
    if task is None or task.deaths or record.tags.get(TARGET) != claim.target or not project(record, now).pending:
        return None
    match task.state:
        case TaskState.SUSPENDED if task.planned is not None:
            pass
        case TaskState.PENDING if task.planned is not None or (task.version == 0 and not task.segments):
            if task.retry_at is not None and task.retry_at > now:
                return None
        case _:
            return None
    silent = task.planned.silent if task.planned is not None else _NONE
    states: dict[str, State] = {}
    arrived: list[tuple[int, str]] = []
    for id in candidates(record):
        other = others.get(id)
        if other is None or other.stamp is not None or other.kind in LOCAL:
            continue
        shown = project(other, now)
        if shown.pending:
            continue
        if other.pending:
            return None
        states[id] = shown.state
        arrived.append((shown.settled_at or now, id))
    for key, id in task.foreign:
        if id in others:
            states[key] = project(others[id], now).state
    for id, at in task.timers:
        if at <= now:
            states[id] = State.RESOLVED
            if id not in silent:
                arrived.append((at, id))
    if task.tree is not None and not satisfied(task.tree, lambda id: states.get(id, State.PENDING)):
        return None
    return tuple([id for _, id in sorted(arrived)])


def taken(record: Record, inbox: tuple[str, ...], claim: Claim) -> Record | None:
    """The record as the store acquired it; its `rev` is set by the store. None: it cannot have been."""
    planned = record.task.planned if record.task is not None else None
    start = planned.start if planned is not None else 0
    return acquire(record, claim.now, claim.holder, claim.ttl, inbox, start, progressed=True)
