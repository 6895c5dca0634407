"""The protocol's state machine, pure: `(request, what was loaded, now) -> (answer, effects)`.

No I/O, no clock, no ids made up: one `now` per operation, and whoever calls carries out the effects in the order that
rule W2 asks for. The semantics are those of the published abstract machine in its projected reading, with the
departures that rules C1 to C5, W7 and W8 name.
"""

from __future__ import annotations

from everstep.protocol import (
    PromiseCreate,
    PromiseGet,
    PromiseRegisterCallback,
    PromiseRegisterListener,
    PromiseSearch,
    PromiseSettle,
    Request,
    ScheduleCreate,
    ScheduleDelete,
    ScheduleGet,
    ScheduleSearch,
    TaskAcquire,
    TaskContinue,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskGet,
    TaskHalt,
    TaskHeartbeat,
    TaskRelease,
    TaskSearch,
    TaskSuspend,
)

from . import promises, schedules, tasks
from .outcome import Config, Entity, NextCron, Outcome, Records, refuse
from .timers import owners


def reads(request: Request) -> tuple[str, ...]:
    """The row ids that `apply` needs to see, each once."""
    ids: list[str] = []
    match request:
        case PromiseGet() | PromiseSettle():
            ids = [request.id, *owners(request.id)]
        case PromiseCreate():
            ids = _for_creation(request)
        case PromiseRegisterCallback():
            ids = [request.awaited, request.awaiter, *owners(request.awaited)]
        case PromiseRegisterListener():
            ids = [request.awaited, *owners(request.awaited)]
        case TaskGet() | TaskAcquire() | TaskFulfill() | TaskRelease() | TaskHalt() | TaskContinue():
            ids = [request.id]
        case TaskCreate():
            ids = _for_creation(request.action)
        case TaskFence():
            action = request.action
            inner = _for_creation(action) if isinstance(action, PromiseCreate) else [action.id, *owners(action.id)]
            ids = [request.id, *inner]
        case TaskHeartbeat():
            ids = [ref.id for ref in request.tasks]
        case TaskSuspend():
            ids = [request.id]
            for one in request.actions:
                ids += (one.awaited, *owners(one.awaited))
        case ScheduleGet() | ScheduleCreate() | ScheduleDelete():
            ids = [schedules.row_id(request.id)]
        case PromiseSearch() | TaskSearch() | ScheduleSearch():
            pass
    return tuple(dict.fromkeys(ids))


def _for_creation(request: PromiseCreate) -> list[str]:
    parent = request.tags.get(promises.PARENT)
    return [request.id, *owners(request.id), *([parent] if parent else ())]


def _no_cron(cron: str, after: int) -> int:
    raise NotImplementedError("no next_cron was given")


def apply(request: Request, records: Records, now: int, next_cron: NextCron = _no_cron) -> Outcome:
    """Decide a request.

    Args:
        records: the rows of `reads(request)` that exist, by id.
        now: milliseconds; the one instant of this operation.
        next_cron: needed by `schedule.create` alone.
    """
    match request:
        case PromiseGet():
            return promises.get(request, records, now)
        case PromiseCreate():
            return promises.create(request, records, now)
        case PromiseSettle():
            return promises.settle(request, records, now)
        case PromiseRegisterCallback():
            return promises.register_callback(request, records, now)
        case PromiseRegisterListener():
            return promises.register_listener(request, records, now)
        case TaskGet():
            return tasks.get(request, records, now)
        case TaskCreate():
            return tasks.create(request, records, now)
        case TaskAcquire():
            return tasks.acquire(request, records, now)
        case TaskFence():
            return tasks.fence(request, records, now)
        case TaskHeartbeat():
            return tasks.heartbeat(request, records, now)
        case TaskSuspend():
            return tasks.suspend(request, records, now)
        case TaskFulfill():
            return tasks.fulfill(request, records, now)
        case TaskRelease():
            return tasks.release(request, records, now)
        case TaskHalt():
            return tasks.halt(request, records, now)
        case TaskContinue():
            return tasks.resume_halted(request, records, now)
        case ScheduleGet():
            return schedules.get(request, records)
        case ScheduleCreate():
            return schedules.create(request, records, now, next_cron)
        case ScheduleDelete():
            return schedules.delete(request, records)
        case PromiseSearch() | TaskSearch() | ScheduleSearch():
            # The machine leaves searching open; the service answers it from the store (C5: outside linearizability).
            return refuse(501, "the kernel does not search")


__all__ = ["Config", "Entity", "NextCron", "Outcome", "Records", "apply", "owners", "reads"]
