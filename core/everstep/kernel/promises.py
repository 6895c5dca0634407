"""Promises: get, create, settle, register_callback, register_listener (protocol: promise requests).

Reads serve the projection at `now` and write nothing (the projected reading of the abstract machine): a promise past
its deadline answers as settled, whatever the store still says.
"""

from __future__ import annotations

from everstep.clock import NEVER
from everstep.errors import InvalidId
from everstep.ids import check_any
from everstep.promise import (
    BRANCH,
    DELAY,
    NO_TAGS,
    SCHEDULE_PREFIX,
    TARGET,
    Kind,
    Record,
    State,
    Tags,
    Task,
    TaskState,
    is_external,
    is_timer,
    project,
    settled,
)
from everstep.protocol import (
    PromiseCreate,
    PromiseGet,
    PromiseRegisterCallback,
    PromiseRegisterListener,
    PromiseSettle,
    Reply,
)

from . import timers
from .outcome import Outcome, Records, refuse

PARENT = "resonate:parent"
WORK = "everstep:work"
"""Marks a promise that a client of ours asked for, so that it counts as a run whoever carries the request."""

SETTLEMENTS = (State.RESOLVED, State.REJECTED, State.CANCELED)
"""States a client may settle to; the deadline alone writes `rejected_timedout`."""


def get(request: PromiseGet, records: Records, now: int) -> Outcome:
    record, _ = timers.read(request.id, records)
    if record is None:
        return refuse(404, f"there is no promise {request.id!r}")
    return Outcome(Reply(200, promise=project(record, now)))


def has_task(tags: Tags) -> bool:
    """Whether a promise is somebody's to execute.

    The specification refuses a timer with a target. The official TypeScript SDK creates its sleeps so, for a server
    that arms no deadline without a target, and lets the task lie: here such a timer is a timer, and has none.
    """
    return TARGET in tags and not is_timer(tags)


def bad_create(id: str, tags: Tags) -> str | None:
    """Why a promise may not be created so (status 400), if it may not."""
    if id.startswith(SCHEDULE_PREFIX):
        return f"an id may not begin with {SCHEDULE_PREFIX!r}"
    delay = tags.get(DELAY)
    if delay is not None and not (delay.isascii() and delay.isdecimal() and len(delay) <= 16):
        return f"{DELAY} must be an instant in milliseconds"
    try:
        for name in (BRANCH, PARENT):
            if tags.get(name):
                check_any(tags[name], name)  # stores are asked for it
    except InvalidId as error:
        return str(error)
    return None


def create(request: PromiseCreate, records: Records, now: int) -> Outcome:
    problem = bad_create(request.id, request.tags)
    if problem is not None:
        return refuse(400, problem)
    standing, _ = timers.read(request.id, records)
    if standing is not None:
        return Outcome(Reply(200, promise=project(standing, now)))
    fresh = born(request, now, records.get(request.tags.get(PARENT, "")))
    return Outcome(Reply(200, promise=fresh), (fresh,))


def born(request: PromiseCreate, now: int, parent: object = None) -> Record:
    """A promise as it is created at `now`: pending, or settled at once where its deadline has passed.

    `parent` is the record of the parent where it is known: no child outlives its parent's deadline (rule C2).
    """
    tags = request.tags
    timeout_at = min(request.timeout_at, NEVER)
    if isinstance(parent, Record) and parent.id != request.id:
        timeout_at = min(timeout_at, parent.timeout_at)
    targeted = has_task(tags)
    kind = Kind.ROOT if WORK in tags else Kind.FOREIGN
    branch = tags.get(BRANCH) or (request.id if targeted else "")
    if timeout_at > now:
        task = None
        if targeted:
            task = Task(TaskState.PENDING, retry_at=max(int(tags.get(DELAY, "0")), now))
        state, created_at, settled_at = State.PENDING, now, None
    else:
        task = Task(TaskState.FULFILLED) if targeted else None
        state = State.RESOLVED if is_timer(tags) else State.TIMEDOUT
        created_at = settled_at = timeout_at
    return Record(
        request.id,
        state,
        kind,
        branch,
        request.param,
        tags=tags or NO_TAGS,
        timeout_at=timeout_at,
        created_at=created_at,
        settled_at=settled_at,
        task=task,
    )


def settle(request: PromiseSettle, records: Records, now: int) -> Outcome:
    if request.state not in SETTLEMENTS:
        return refuse(400, f"a client cannot settle to {request.state.value}")
    record, also = timers.read(request.id, records)
    if record is None:
        return refuse(404, f"there is no promise {request.id!r}")
    shown = project(record, now)
    if shown.pending:
        done = settled(record, request.state, request.value, now)
        return Outcome(Reply(200, promise=done), (done, *also), drain=owing(done))
    # A promise that is settled already is drained again, in case whoever settled it never came to it (rule W3).
    return Outcome(Reply(200, promise=shown), drain=owing(shown) if not also else ())


def owing(record: Record) -> tuple[str, ...]:
    """The id of a settled promise that somebody still waits for."""
    return (record.id,) if not record.pending and (record.callbacks or record.listeners) else ()


def register_callback(request: PromiseRegisterCallback, records: Records, now: int) -> Outcome:
    if request.awaited == request.awaiter:
        return refuse(400, "a promise cannot wait for itself")
    record, also = timers.read(request.awaited, records)
    if record is None:
        return refuse(404, f"there is no promise {request.awaited!r}")
    awaiter, _ = timers.read(request.awaiter, records)
    if awaiter is None or awaiter.task is None:
        return refuse(422, f"{request.awaiter!r} cannot wait: it is no promise with a target")
    if not is_external(record):
        return refuse(422, internal(record.id))
    shown = project(record, now)
    if not shown.pending or not project(awaiter, now).pending or request.awaiter in record.callbacks:
        return Outcome(Reply(200, promise=shown))
    changed = add_callback(record, request.awaiter)
    return Outcome(Reply(200, promise=changed), (changed, *also))


def add_callback(record: Record, awaiter: str) -> Record:
    if awaiter in record.callbacks:
        return record
    return record._replace(callbacks=(*record.callbacks, awaiter))


def internal(id: str) -> str:
    return (
        f"{id!r} is internal: its deadline is never armed, so nobody may wait for it from outside; "
        "tag it resonate:external"
    )


def register_listener(request: PromiseRegisterListener, records: Records, now: int) -> Outcome:
    if not deliverable(request.address):
        return refuse(400, "address must be http://..., https://..., poll://any@group or poll://uni@group/id")
    record, also = timers.read(request.awaited, records)
    if record is None:
        return refuse(404, f"there is no promise {request.awaited!r}")
    if not is_external(record):
        return refuse(422, internal(record.id))
    shown = project(record, now)
    if not shown.pending or request.address in record.listeners:
        return Outcome(Reply(200, promise=shown))
    changed = record._replace(listeners=(*record.listeners, request.address))
    return Outcome(Reply(200, promise=changed), (changed, *also))


def deliverable(address: str) -> bool:
    """Whether a message can be sent there: a poll address names a group, and whom of it, as the pull transport knows
    them; what is for nobody would be taken for told.
    """
    cast, _, to = address.removeprefix("poll://").partition("@")
    group, _, id = to.partition("/")
    pulled = address.startswith("poll://") and group != "" and (cast == "any" or (cast == "uni" and id != ""))
    return pulled or address.startswith(("http://", "https://"))
