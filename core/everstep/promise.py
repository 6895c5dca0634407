"""Records. A promise is a value that is not there yet; a promise with a target carries its task.

`Record` is what decisions are made on; `Row` is the same thing as flat text and integers, the only thing a store
ever sees. Nothing here reads a clock or performs I/O: each function takes a record and an instant and returns a record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from .clock import NEVER
from .errors import StoreCorrupted

make = tuple.__new__
"""What the constructor of a NamedTuple does, in a quarter of its time: for what every step makes several of."""


class State(str, Enum):
    """State of a promise (protocol: promise record)."""

    PENDING = "pending"
    RESOLVED = "resolved"
    REJECTED = "rejected"
    CANCELED = "rejected_canceled"
    TIMEDOUT = "rejected_timedout"


class TaskState(str, Enum):
    """State of a task (protocol: task record)."""

    PENDING = "pending"
    ACQUIRED = "acquired"
    SUSPENDED = "suspended"
    HALTED = "halted"
    FULFILLED = "fulfilled"


class Kind:
    """What an operation of a workflow body is. A record created by a protocol client has no kind."""

    STEP = "step"
    CHILD = "child"
    RPC = "rpc"
    TIMER = "timer"
    PROMISE = "promise"
    DETACHED = "detached"
    ROOT = "root"
    SCHEDULE = "schedule"
    FOLD = "fold"
    FOREIGN = ""


LOCAL = (Kind.STEP, Kind.CHILD, Kind.TIMER, Kind.DETACHED, Kind.FOLD)


Tags = Mapping[str, str]
NO_TAGS: Tags = {}


class Payload(NamedTuple):
    """A stored value: text, and headers where the text is not plain JSON (a key id, a reference)."""

    data: str | None = None
    headers: Tags = NO_TAGS


EMPTY = Payload()


class Stamp(NamedTuple):
    """Which delivery a record is: the n-th of the run's history, written under this epoch (rule P2)."""

    epoch: int
    n: int


class Segment(NamedTuple):
    """One acquisition: its epoch, the history length it began with, what it delivered first, and when (rule P2.2)."""

    epoch: int
    start: int
    inbox: tuple[str, ...]
    at: int


Tree = str | tuple[Any, ...]
"""What a body waits for: an id, or ("any" | "all" | "try", *trees). `try` is all settled or any rejected (rule P5)."""


class Plan(NamedTuple):
    """What a task that was let go keeps for stores that acquire and load in one request (`everstep.resuming`): the
    length of its history, children that may have to be delivered though its tree does not name them, and timers that
    are back-offs of steps, for which nothing is delivered."""

    start: int
    beside: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


class Task(NamedTuple):
    """The execution of a targeted promise.

    `version`, `pid`, `ttl`, `expires_at`, `retry_at` and `resumes` are the protocol's; instants in milliseconds. The
    rest belongs to the engine: the await tree with its timers (rule B1), promises of other origins it waits for (W5),
    the history's segments (P2), the generation and its arguments (I5), and how often it died without progress, or was
    let go without any. `offers` counts how often it was offered to workers of the protocol since it became pending.
    """

    state: TaskState
    version: int = 0
    pid: str | None = None
    ttl: int | None = None
    expires_at: int | None = None
    retry_at: int | None = None
    resumes: tuple[str, ...] = ()
    tree: Tree | None = None
    timers: tuple[tuple[str, int], ...] = ()
    foreign: tuple[tuple[str, str], ...] = ()
    poll_at: int | None = None
    segments: tuple[Segment, ...] = ()
    generation: int = 1
    carried: Payload | None = None
    deaths: int = 0
    reason: str | None = None
    planned: Plan | None = None
    offers: int = 0


class Record(NamedTuple):
    """A promise, with its task where it has a target."""

    id: str
    state: State
    kind: str = Kind.FOREIGN
    branch: str = ""
    param: Payload = EMPTY
    value: Payload = EMPTY
    tags: Tags = NO_TAGS
    timeout_at: int = NEVER
    created_at: int = 0
    settled_at: int | None = None
    callbacks: tuple[str, ...] = ()
    listeners: tuple[str, ...] = ()
    task: Task | None = None
    stamp: Stamp | None = None
    attempt: int = 0
    retry_at: int | None = None
    wake: str | None = None
    rev: int = 0

    @property
    def pending(self) -> bool:
        return self.state is State.PENDING


class Schedule(NamedTuple):
    """A cron that creates a promise at each tick; instants in milliseconds."""

    id: str
    cron: str
    promise_id: str
    promise_timeout: int
    promise_param: Payload
    promise_tags: Tags
    created_at: int
    next_run_at: int
    last_run_at: int | None = None
    wake: str | None = None
    rev: int = 0


class Row(NamedTuple):
    """A record as a store keeps it. `due` is when somebody must look at it next; `lease` is the task's version while
    it is acquired, so that a fence is one comparison; `rev` counts writes, so that every write changes a field
    (rule F3)."""

    id: str
    branch: str
    kind: str
    state: str
    rev: int
    due: int | None
    lease: int | None
    epoch: int | None
    n: int | None
    param: str | None
    value: str | None
    timeout_at: int | None
    created_at: int
    settled_at: int | None
    tags: str | None
    task: str | None
    rest: str | None


TARGET = "resonate:target"
TIMER = "resonate:timer"
EXTERNAL = "resonate:external"
SCOPE = "resonate:scope"
DELAY = "resonate:delay"
BRANCH = "resonate:branch"
RETENTION = "everstep:retention"
"""Tag that holds how long a settled root is kept, in milliseconds (rule T1)."""


_OURS = "everstep://"


def group_of(target: str) -> str:
    """The group a target addresses. `everstep://<app>/<member>` addresses the App's whole group; see `member_of`."""
    return target[: (target + "/").index("/", len(_OURS))] if target.startswith(_OURS) else target


def member_of(target: str) -> str:
    """The member of its group that a target prefers, "" for none. Advice: when that one does not come, others do."""
    return target[len(group_of(target)) + 1 :] if target.startswith(_OURS) else ""


def is_ours(target: str) -> bool:
    """Whether an App carries out what is addressed so, rather than a worker of the protocol."""
    return target.startswith(_OURS)


def is_timer(tags: Tags) -> bool:
    return tags.get(TIMER) == "true"


def is_external(record: Record) -> bool:
    """Whether a promise arms its deadline and accepts callbacks and listeners (rule C1)."""
    tags = record.tags
    return (
        record.task is not None
        or TARGET in tags
        or tags.get(TIMER) == "true"
        or tags.get(EXTERNAL) == "true"
        or tags.get(SCOPE) == "global"
        or record.kind == Kind.PROMISE
    )


def project(record: Record, now: int) -> Record:
    """The record as any answer must show it at `now`: settled by its deadline if that has passed (projection)."""
    if record.state is State.PENDING and record.timeout_at <= now:
        state = State.RESOLVED if is_timer(record.tags) else State.TIMEDOUT
        return settled(record, state, EMPTY, record.timeout_at)
    return record


def settled(record: Record, state: State, value: Payload, at: int) -> Record:
    """The record settled, its task fulfilled with it."""
    task = record.task
    if task is not None and task.state is not TaskState.FULFILLED:
        # The segments stay, for people to see when it slept.
        task = Task(TaskState.FULFILLED, task.version, segments=task.segments, generation=task.generation)
    return record._replace(state=state, value=value, settled_at=at, task=task)


def due_at(record: Record) -> int | None:
    """When somebody must look at this record next, in milliseconds; None when nobody ever must (rule W1)."""
    if record.state is not State.PENDING:
        return record.settled_at if record.callbacks or record.listeners else None
    due = NEVER
    if record.timeout_at != NEVER and is_external(record):
        due = record.timeout_at
    task = record.task
    if task is not None:
        match task.state:
            case TaskState.PENDING:
                due = min(due, task.retry_at if task.retry_at is not None else NEVER)
            case TaskState.ACQUIRED:
                due = min(due, task.expires_at if task.expires_at is not None else NEVER)
            case TaskState.SUSPENDED:
                if task.tree is not None:
                    due = min(due, ready_at(task.tree, dict(task.timers)))
                if task.poll_at is not None:
                    due = min(due, task.poll_at)
            case _:
                pass
    return None if due >= NEVER else due


def _unsettled(id: str) -> State:
    return State.PENDING


def ready_at(tree: Tree, timers: Mapping[str, int], outcome: Callable[[str], State] = _unsettled) -> int:
    """The earliest instant at which timers alone satisfy what is left of the tree; NEVER when they cannot.

    Args:
        outcome: the state of each awaited id; by default nothing is settled yet.
    """
    if isinstance(tree, str):
        return 0 if outcome(tree) is not State.PENDING else timers.get(tree, NEVER)
    how, parts = tree[0], tree[1:]
    if not parts or (how == "try" and any(_rejected(part, outcome) for part in parts)):
        return 0
    instants = [ready_at(part, timers, outcome) for part in parts]
    return min(instants) if how == "any" else max(instants)


def satisfied(tree: Tree, outcome: Callable[[str], State]) -> bool:
    """Whether a body waiting on `tree` has something to do, given the state of each awaited id (rules P5, W7)."""
    if isinstance(tree, str):
        return outcome(tree) is not State.PENDING
    how, parts = tree[0], tree[1:]
    if how == "any":
        return not parts or any(satisfied(part, outcome) for part in parts)
    if how == "try" and any(_rejected(part, outcome) for part in parts):
        return True
    return all(satisfied(part, outcome) for part in parts)


def _rejected(tree: Tree, outcome: Callable[[str], State]) -> bool:
    if isinstance(tree, str):
        return outcome(tree) not in (State.PENDING, State.RESOLVED)
    return any(_rejected(part, outcome) for part in tree[1:])


def leaves(tree: Tree) -> list[str]:
    """Every id in a tree, in order, each once."""
    if isinstance(tree, str):
        return [tree]
    return list(dict.fromkeys(id for part in tree[1:] for id in leaves(part)))


_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_loads = json.loads
_STATES = {state.value: state for state in State}
_TASK_STATES = {state.value: state for state in TaskState}


def is_local(row: Row) -> bool:
    """Whether only the holder of a run writes this record (a completion, a failed attempt, a fold), rather than a
    promise of its own, which others settle."""
    return row.epoch is not None or row.kind in LOCAL


def to_row(record: Record) -> Row:
    """Flatten a record for a store. `rev` is copied: whoever writes it decides the new one."""
    task = record.task
    stamp = record.stamp
    rest: dict[str, Any] | None = None
    if record.callbacks or record.listeners or record.attempt or record.wake or record.param[1] or record.value[1]:
        rest = {}
        if record.callbacks:
            rest["c"] = record.callbacks
        if record.listeners:
            rest["l"] = record.listeners
        if record.attempt:
            rest["a"] = record.attempt
            rest["r"] = record.retry_at
        if record.wake:
            rest["w"] = record.wake
        if record.param.headers:
            rest["ph"] = record.param.headers
        if record.value.headers:
            rest["vh"] = record.value.headers
    return Row(
        record.id,
        record.branch,
        record.kind,
        record.state.value,
        record.rev,
        due_at(record),
        task.version if task is not None and task.state is TaskState.ACQUIRED else None,
        stamp.epoch if stamp is not None else None,
        stamp.n if stamp is not None else None,
        record.param[0],
        record.value[0],
        None if record.timeout_at == NEVER else record.timeout_at,
        record.created_at,
        record.settled_at,
        _dumps(dict(record.tags)) if record.tags else None,
        _task_text(task) if task is not None else None,
        _dumps(rest) if rest else None,
    )


def from_row(row: Row) -> Record:
    """The record a row holds. Raises StoreCorrupted, naming the id, where its text is damaged."""
    try:
        return _from_row(row)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StoreCorrupted(f"{row.id}: its row cannot be read: {type(error).__name__}: {error}") from error


def _from_row(row: Row) -> Record:
    (
        id,
        branch,
        kind,
        state,
        rev,
        _,
        _,
        epoch,
        n,
        param,
        value,
        timeout_at,
        created_at,
        settled_at,
        tags,
        task,
        rest,
    ) = row
    extra: dict[str, Any] = _loads(rest) if rest is not None else {}
    return Record(
        id,
        _STATES[state],
        kind,
        branch,
        Payload(param, extra.get("ph", NO_TAGS)),
        Payload(value, extra.get("vh", NO_TAGS)),
        _loads(tags) if tags is not None else NO_TAGS,
        NEVER if timeout_at is None else timeout_at,
        created_at,
        settled_at,
        tuple(extra.get("c", ())),
        tuple(extra.get("l", ())),
        _task_from(task) if task is not None else None,
        Stamp(epoch, n) if epoch is not None and n is not None else None,
        extra.get("a", 0),
        extra.get("r"),
        extra.get("w"),
        rev,
    )


def _task_text(task: Task) -> str:
    data: dict[str, Any] = {"s": task.state.value, "v": task.version}
    if task.pid is not None:
        data["p"] = task.pid
    if task.ttl is not None:
        data["t"] = task.ttl
    if task.expires_at is not None:
        data["e"] = task.expires_at
    if task.retry_at is not None:
        data["r"] = task.retry_at
    if task.resumes:
        data["u"] = task.resumes
    if task.tree is not None:
        data["w"] = task.tree
    if task.timers:
        data["i"] = task.timers
    if task.foreign:
        data["f"] = task.foreign
    if task.poll_at is not None:
        data["o"] = task.poll_at
    if task.segments:
        data["h"] = task.segments
    if task.generation != 1:
        data["g"] = task.generation
    if task.carried is not None:
        data["c"] = [task.carried.data, dict(task.carried.headers)]
    if task.deaths:
        data["d"] = task.deaths
    if task.reason is not None:
        data["x"] = task.reason
    if task.planned is not None:
        data["k"] = task.planned
    if task.offers:
        data["n"] = task.offers
    return _dumps(data)


def _task_from(text: str) -> Task:
    data = _loads(text)
    get = data.get
    carried = get("c")
    tree = get("w")
    plan = get("k")
    return Task(
        _TASK_STATES[data["s"]],
        data["v"],
        get("p"),
        get("t"),
        get("e"),
        get("r"),
        tuple(get("u", ())),
        _tree_from(tree) if tree is not None else None,
        tuple([(id, at) for id, at in get("i", ())]),
        tuple([(id, at) for id, at in get("f", ())]),
        get("o"),
        tuple([Segment(epoch, start, tuple(inbox), at) for epoch, start, inbox, at in get("h", ())]),
        get("g", 1),
        Payload(carried[0], carried[1]) if carried is not None else None,
        get("d", 0),
        get("x"),
        Plan(plan[0], tuple(plan[1]), tuple(plan[2])) if plan is not None else None,
        get("n", 0),
    )


def _tree_from(data: Any) -> Tree:
    return data if isinstance(data, str) else (data[0], *[_tree_from(part) for part in data[1:]])


SCHEDULE_PREFIX = "~schedule/"


def schedule_row(schedule: Schedule) -> Row:
    """A schedule as a row of kind `schedule`, under an id no promise of a user has."""
    body = {
        "cron": schedule.cron,
        "id": schedule.promise_id,
        "timeout": schedule.promise_timeout,
        "headers": dict(schedule.promise_param.headers),
        "tags": dict(schedule.promise_tags),
        "next": schedule.next_run_at,
        "last": schedule.last_run_at,
        "wake": schedule.wake,
    }
    return Row(
        SCHEDULE_PREFIX + schedule.id,
        "",
        Kind.SCHEDULE,
        State.PENDING.value,
        schedule.rev,
        schedule.next_run_at,
        None,
        None,
        None,
        schedule.promise_param.data,
        None,
        None,
        schedule.created_at,
        None,
        None,
        None,
        _dumps(body),
    )


def schedule_from(row: Row) -> Schedule:
    """The schedule a row of kind `schedule` holds."""
    body = _loads(row.rest or "{}")
    return Schedule(
        row.id.removeprefix(SCHEDULE_PREFIX),
        body["cron"],
        body["id"],
        body["timeout"],
        Payload(row.param, body["headers"]),
        body["tags"],
        row.created_at,
        body["next"],
        body["last"],
        body["wake"],
        row.rev,
    )


def records(rows: Sequence[Row]) -> dict[str, Record]:
    """Rows as records by id."""
    return {row.id: from_row(row) for row in rows}
