"""Timers that live inside a suspended task's record (rule B1), as the promises that everybody else takes them for.

Such a timer is read as a promise of its own. The first thing that must be kept about it (a settlement, somebody who
waits for it) makes it one: a record, with its owner as awaiter, taken out of the owner in the same commit.
"""

from __future__ import annotations

from everstep.promise import TIMER, Kind, Record, State

from .outcome import Entity, Records


def owners(id: str) -> tuple[str, ...]:
    """The ids whose task may carry the timer `id`: everything in front of one of its dots, nearest first."""
    found = []
    dot = id.rfind(".")
    while dot > 0:
        found.append(id[:dot])
        dot = id.rfind(".", 0, dot)
    return tuple(found)


def find(id: str, records: Records) -> tuple[Record, Record] | None:
    """The timer `id` as a promise record, and its owner without it; None when no loaded task carries it."""
    for owner_id in owners(id):
        owner = records.get(owner_id)
        if not isinstance(owner, Record) or owner.task is None:
            continue
        for key, at in owner.task.timers:
            if key == id:
                timer = Record(
                    id,
                    State.PENDING,
                    Kind.TIMER,
                    owner_id,
                    tags={TIMER: "true"},
                    timeout_at=at,
                    created_at=min(owner.task.segments[-1].at if owner.task.segments else owner.created_at, at),
                    callbacks=(owner_id,),
                )
                rest = tuple([entry for entry in owner.task.timers if entry[0] != id])
                return timer, owner._replace(task=owner.task._replace(timers=rest))
    return None


def read(id: str, records: Records) -> tuple[Record | None, tuple[Entity, ...]]:
    """A promise, and what else must be written with it if it is written."""
    record = records.get(id)
    if isinstance(record, Record):
        return record, ()
    embedded = find(id, records)
    if embedded is None:
        return None, ()
    timer, owner = embedded
    return timer, (owner,)
