"""Schedules: a cron that creates a promise at each tick (protocol: schedule requests, and the schedule step).

A tick is an idempotent creation, made before the schedule moves on: a crash between the two makes the same tick again.
Missed ticks all fire, in order, a bounded number to a step.
"""

from __future__ import annotations

from typing import NamedTuple

from everstep.errors import InvalidArgument, InvalidId
from everstep.ids import check_any
from everstep.promise import SCHEDULE_PREFIX, TARGET, Record, Schedule
from everstep.protocol import PromiseCreate, Reply, ScheduleCreate, ScheduleDelete, ScheduleGet

from . import promises
from .outcome import NextCron, Outcome, Records, refuse

SCHEDULE_TAG = "resonate:schedule"


def row_id(id: str) -> str:
    """The id under which a store keeps a schedule."""
    return SCHEDULE_PREFIX + id


def _standing(id: str, records: Records) -> Schedule | None:
    found = records.get(row_id(id))
    return found if isinstance(found, Schedule) else None


def get(request: ScheduleGet, records: Records) -> Outcome:
    found = _standing(request.id, records)
    return _absent(request.id) if found is None else Outcome(Reply(200, schedule=found))


def _absent(id: str) -> Outcome:
    return refuse(404, f"there is no schedule {id!r}")


def create(request: ScheduleCreate, records: Records, now: int, next_cron: NextCron) -> Outcome:
    sample = expand(request.promise_id, request.id, now)
    tags = request.promise_tags
    problem = promises.bad_create(sample, tags)
    if problem is None and TARGET in tags and not promises.has_task(tags):
        problem = "a timer has no target: nobody executes it"
    if problem is not None:
        return refuse(400, problem)
    standing = _standing(request.id, records)
    if standing is not None:
        return Outcome(Reply(200, schedule=standing))
    try:
        check_any(sample, "promise_id")
        next_run_at = next_cron(request.cron, now)
    except (InvalidArgument, InvalidId) as error:
        return refuse(400, str(error))
    fresh = Schedule(
        request.id,
        request.cron,
        request.promise_id,
        request.promise_timeout,
        request.promise_param,
        request.promise_tags,
        now,
        next_run_at,
    )
    return Outcome(Reply(200, schedule=fresh), (fresh,))


def delete(request: ScheduleDelete, records: Records) -> Outcome:
    found = _standing(request.id, records)
    if found is None:
        return _absent(request.id)
    return Outcome(Reply(200), deletes=(row_id(request.id),))


def expand(template: str, id: str, timestamp: int) -> str:
    """The id of a tick's promise: `{{.id}}` and `{{.timestamp}}` (milliseconds) replaced."""
    return template.replace("{{.timestamp}}", str(timestamp)).replace("{{.id}}", id)


def ticks_of(schedule: Schedule) -> str:
    """What the ids of a schedule's promises begin with."""
    return expand(schedule.promise_id.partition("{{.timestamp}}")[0], schedule.id, 0)


class Fired(NamedTuple):
    """Ticks to be created where they are absent, then the schedule as it moves on."""

    ticks: tuple[Record, ...]
    schedule: Schedule


def fire(schedule: Schedule, now: int, next_cron: NextCron, batch: int) -> Fired | None:
    """The ticks that are due; None when none is. Each is born as of its own instant, not of when it is noticed."""
    ticks: list[Record] = []
    at, last = schedule.next_run_at, schedule.last_run_at
    while at <= now and len(ticks) < batch:
        request = PromiseCreate(
            expand(schedule.promise_id, schedule.id, at),
            at + schedule.promise_timeout,
            schedule.promise_param,
            schedule.promise_tags,
        )
        ticks.append(promises.born(request, at))
        last, at = at, next_cron(schedule.cron, at)
    if not ticks:
        return None
    return Fired(tuple(ticks), schedule._replace(last_run_at=last, next_run_at=at))
