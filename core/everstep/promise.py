"""Records. A promise is a value that is not there yet; a promise with a target carries its task.

`Record` is what decisions are made on; a store sees it as a `Row` (`rows.py`). Nothing here reads a clock or performs
I/O: each function takes a record and an instant and returns a record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from .clock import NEVER

UNREAD: Any = object()
"""Stands for the value of a payload that nobody has decoded yet."""

make = tuple.__new__
"""What the constructor of a NamedTuple does, in a quarter of its time: for what every step makes several of."""


class State(str, Enum):
    """State of a promise (protocol: promise record)."""

    PENDING = "pending"
    RESOLVED = "resolved"
    REJECTED = "rejected"
    CANCELED = "rejected_canceled"
    TIMEDOUT = "rejected_timedout"


RESOLVED = State.RESOLVED
"""By a name of its own for what every step asks: Python 3.11 finds a member of an enumeration by a call."""


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


TARGET = "resonate:target"
TIMER = "resonate:timer"
EXTERNAL = "resonate:external"
SCOPE = "resonate:scope"
DELAY = "resonate:delay"
BRANCH = "resonate:branch"
RETENTION = "everstep:retention"
"""Tag that holds how long a settled root is kept, in milliseconds (rule T1)."""


SCHEDULE_PREFIX = "~schedule/"
"""What the row id of a schedule begins with, and no promise's."""


_OURS = "everstep://"


def retention_of(tags: Tags) -> int | None:
    """How long a settled root is kept, in milliseconds; None for ever, and where the tag says nothing (rule T1).

    Anybody who may create a promise chooses its tags.
    """
    keep = tags.get(RETENTION, "")
    return int(keep) if keep.isascii() and keep.isdecimal() and len(keep) <= 15 else None


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


def released(record: Record, task: Task, retry_at: int, planned: Plan | None = None) -> Record:
    """The record with its task let go: pending, due at `retry_at`, its buffered resumes kept."""
    return record._replace(
        task=task._replace(
            state=TaskState.PENDING, pid=None, ttl=None, expires_at=None, retry_at=retry_at, planned=planned
        )
    )


def halted(record: Record, task: Task, reason: str) -> Record:
    """The record with its task stopped: nobody is woken for it until a person continues it."""
    return record._replace(
        task=task._replace(
            state=TaskState.HALTED,
            pid=None,
            ttl=None,
            expires_at=None,
            retry_at=None,
            poll_at=None,
            reason=reason,
            planned=None,
        )
    )


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
