"""Tasks: the leased execution of a targeted promise (protocol: task requests).

Every door asks the promise first, as projected at `now`: a task whose promise has reached its deadline is fulfilled,
whatever the store still says, so that nothing is leased, halted, continued or dispatched on behalf of the dead.
The version rises by exactly one with each acquisition and with nothing else.
"""

from __future__ import annotations

from everstep.ids import origin_of
from everstep.ports import Fence
from everstep.promise import (
    BRANCH,
    TARGET,
    Record,
    Task,
    TaskState,
    halted,
    is_external,
    is_ours,
    project,
    released,
    settled,
)
from everstep.protocol import (
    PromiseCreate,
    Reply,
    TaskAcquire,
    TaskContinue,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskGet,
    TaskHalt,
    TaskHeartbeat,
    TaskRelease,
    TaskSuspend,
)

from . import promises, timers
from .outcome import Entity, Outcome, Records, refuse

_RELEASED = 250
"""Milliseconds until a task that was let go twice without progress is offered again; doubled each time after."""
_RELEASED_MOST = 10_000
"""Milliseconds, the most that this is doubled to."""


def _task(id: str, records: Records, now: int) -> tuple[Record, Record, Task] | None:
    """The stored record, its projection, and the projected task: fulfilled, if the promise is settled by now."""
    record = records.get(id)
    if not isinstance(record, Record) or record.task is None:
        return None
    shown = project(record, now)
    assert shown.task is not None
    return record, shown, shown.task


def _absent(id: str) -> Outcome:
    return refuse(404, f"there is no task {id!r}")


def _held(id: str, version: int, records: Records, now: int) -> tuple[Record, Task] | Outcome:
    """The record of a task that is acquired at this version and alive, or the refusal."""
    found = _task(id, records, now)
    if found is None:
        return _absent(id)
    record, _, task = found
    if task.state is not TaskState.ACQUIRED:
        return refuse(409, f"task {id!r} is {task.state.value}")
    if task.version != version:
        return refuse(409, f"task {id!r} is at version {task.version}")
    return record, task


def _branch(record: Record) -> tuple[str, str]:
    return record.branch or record.tags.get(BRANCH, record.id), record.id


def get(request: TaskGet, records: Records, now: int) -> Outcome:
    found = _task(request.id, records, now)
    return _absent(request.id) if found is None else Outcome(Reply(200, task=found[1]))


def create(request: TaskCreate, records: Records, now: int) -> Outcome:
    action = request.action
    if TARGET not in action.tags:
        return refuse(400, f"a task needs a promise with a {TARGET}")
    if not promises.has_task(action.tags):
        return refuse(400, "a timer has no task: nobody executes it")
    problem = promises.bad_create(action.id, action.tags)
    if problem is not None:
        return refuse(400, problem)
    standing = records.get(action.id)
    if standing is None and timers.find(action.id, records) is None:
        fresh = promises.born(action, now, records.get(action.tags.get(promises.PARENT, "")))
        if fresh.pending:
            fresh = fresh._replace(task=_lease(Task(TaskState.PENDING), now, request.pid, request.ttl))
        return Outcome(Reply(200, promise=fresh, task=fresh), (fresh,))
    found = _task(action.id, records, now)
    if found is None:
        return refuse(422, f"promise {action.id!r} has no target")
    record, shown, task = found
    if task.state is TaskState.FULFILLED:
        return Outcome(Reply(200, promise=shown, task=shown), branch=_branch(record))
    if task.state is not TaskState.PENDING:
        return refuse(409, f"task {action.id!r} is {task.state.value}")
    return _acquired(record, task, now, request.pid, request.ttl)


def _lease(task: Task, now: int, pid: str, ttl: int) -> Task:
    return task._replace(
        state=TaskState.ACQUIRED,
        version=task.version + 1,
        pid=pid,
        ttl=ttl,
        expires_at=now + ttl,
        retry_at=None,
        resumes=(),
        tree=None,
        poll_at=None,
        planned=None,
        offers=0,
    )


def _acquired(record: Record, task: Task, now: int, pid: str, ttl: int) -> Outcome:
    taken = record._replace(task=_lease(task, now, pid, ttl))
    return Outcome(Reply(200, promise=taken, task=taken), (taken,), branch=_branch(record))


def acquire(request: TaskAcquire, records: Records, now: int) -> Outcome:
    found = _task(request.id, records, now)
    if found is None:
        return _absent(request.id)
    record, _, task = found
    if task.state is not TaskState.PENDING:
        return refuse(409, f"task {request.id!r} is {task.state.value}")
    if task.version != request.version:
        return refuse(409, f"task {request.id!r} is at version {task.version}")
    return _acquired(record, task, now, request.pid, request.ttl)


def fence(request: TaskFence, records: Records, now: int) -> Outcome:
    action = request.action
    if action.id == request.id:
        return refuse(400, "a task may not act on its own promise through its fence")
    held = _held(request.id, request.version, records, now)
    if isinstance(held, Outcome):
        return held
    if isinstance(action, PromiseCreate):
        inner = promises.create(action, records, now)
    else:
        inner = promises.settle(action, records, now)
    # Across origins no commit can hold both: the lease was checked as it was read, and the action is idempotent (C3).
    same = origin_of(action.id) == origin_of(request.id)
    return inner._replace(
        reply=Reply(200, action=inner.reply),
        fence=Fence(request.id, request.version) if same and inner.puts else None,
    )


def heartbeat(request: TaskHeartbeat, records: Records, now: int) -> Outcome:
    puts: list[Entity] = []
    for ref in dict.fromkeys(request.tasks):
        held = _held(ref.id, ref.version, records, now)
        if isinstance(held, Outcome) or held[1].pid != request.pid:
            continue
        record, task = held
        expires_at = now + (task.ttl or 0)
        if expires_at != task.expires_at:
            puts.append(record._replace(task=task._replace(expires_at=expires_at)))
    return Outcome(Reply(200), tuple(puts))


def suspend(request: TaskSuspend, records: Records, now: int) -> Outcome:
    awaited = [action.awaited for action in request.actions]
    if not awaited:
        return refuse(400, "a task suspends on at least one promise")
    if request.id in awaited:
        return refuse(400, "a task cannot wait for itself")
    if len(set(awaited)) != len(awaited):
        return refuse(400, "a task waits for each promise once")
    held = _held(request.id, request.version, records, now)
    if isinstance(held, Outcome):
        return held
    record, task = held
    ready = False
    changed: dict[str, Entity] = {}
    for id in awaited:
        promise, also = timers.read(id, {**records, **changed})
        if promise is None:
            return refuse(422, f"there is no promise {id!r}")
        if not is_external(promise):
            return refuse(422, promises.internal(id))
        ready = ready or not project(promise, now).pending
        changed[id] = promises.add_callback(promise, request.id)
        changed.update((entity.id, entity) for entity in also)
    if ready:
        cleared = (record._replace(task=task._replace(resumes=())),) if task.resumes else ()
        return Outcome(Reply(300), cleared, branch=_branch(record))
    current = changed.pop(request.id, record)
    assert isinstance(current, Record)
    assert current.task is not None
    parked = current._replace(
        task=current.task._replace(
            state=TaskState.SUSPENDED,
            pid=None,
            ttl=None,
            expires_at=None,
            retry_at=None,
            resumes=(),
            tree=None,
            poll_at=None,
            deaths=0,
        )
    )
    puts = [entity for id, entity in changed.items() if entity is not records.get(id)]
    return Outcome(Reply(200), (*puts, parked))


def fulfill(request: TaskFulfill, records: Records, now: int) -> Outcome:
    action = request.action
    if action.state not in promises.SETTLEMENTS:
        return refuse(400, f"a client cannot settle to {action.state.value}")
    if action.id != request.id:
        return refuse(400, "a task fulfils its own promise")
    held = _held(request.id, request.version, records, now)
    if isinstance(held, Outcome):
        return held
    done = settled(held[0], action.state, action.value, now)
    return Outcome(Reply(200, promise=done), (done,), drain=promises.owing(done))


def release(request: TaskRelease, records: Records, now: int) -> Outcome:
    """Let go, and offer to the next at once; later each time where one after the other lets it go without progress.

    A worker that cannot run a task lets it go as soon as it gets it, and is offered it again: at full speed, that is a
    loop of writes. The machine makes a task due at the instant of its release and leaves open when that is noticed.
    """
    held = _held(request.id, request.version, records, now)
    if isinstance(held, Outcome):
        return held
    record, task = held
    if is_ours(record.tags.get(TARGET, "")):
        return Outcome(Reply(200), (released(record, task, now),))
    delay = min(_RELEASED << min(task.deaths - 1, 16), _RELEASED_MOST) if task.deaths else 0
    return Outcome(Reply(200), (released(record, task._replace(deaths=task.deaths + 1), now + delay),))


def halt(request: TaskHalt, records: Records, now: int) -> Outcome:
    found = _task(request.id, records, now)
    if found is None:
        return _absent(request.id)
    record, _, task = found
    if task.state is TaskState.FULFILLED:
        return refuse(409, f"task {request.id!r} is fulfilled")
    if task.state is TaskState.HALTED:
        return Outcome(Reply(200))
    return Outcome(Reply(200), (halted(record, task, "halted"),))


def resume_halted(request: TaskContinue, records: Records, now: int) -> Outcome:
    found = _task(request.id, records, now)
    if found is None:
        return _absent(request.id)
    record, _, task = found
    if task.state is not TaskState.HALTED:
        return refuse(409, f"task {request.id!r} is {task.state.value}")
    going = task._replace(state=TaskState.PENDING, retry_at=now, tree=None, deaths=0, reason=None, offers=0)
    return Outcome(Reply(200), (record._replace(task=going),))
