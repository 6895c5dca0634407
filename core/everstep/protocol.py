"""What a client may ask, what it is answered, and what is sent without being asked (Resonate protocol, 2026-04-01).

Closed unions of plain values: `match` over `Request` is exhaustive, and nothing here knows of JSON (`protocol_json`) or
of storage. Instants and durations are milliseconds.
"""

from __future__ import annotations

from typing import NamedTuple

from .promise import EMPTY, NO_TAGS, Payload, Record, Schedule, State, Tags, TaskState

VERSION = "2026-04-01"


class PromiseGet(NamedTuple):
    id: str


class PromiseCreate(NamedTuple):
    id: str
    timeout_at: int
    param: Payload = EMPTY
    tags: Tags = NO_TAGS


class PromiseSettle(NamedTuple):
    id: str
    state: State
    value: Payload = EMPTY


class PromiseRegisterCallback(NamedTuple):
    awaited: str
    awaiter: str


class PromiseRegisterListener(NamedTuple):
    awaited: str
    address: str


class PromiseSearch(NamedTuple):
    """`prefix`, here and in the other searches, is never the client's: it is what the caller may see (of the id)."""

    state: State | None = None
    tags: Tags = NO_TAGS
    limit: int = 100
    cursor: str | None = None
    prefix: str = ""


class TaskGet(NamedTuple):
    id: str


class TaskCreate(NamedTuple):
    pid: str
    ttl: int
    action: PromiseCreate


class TaskAcquire(NamedTuple):
    id: str
    version: int
    pid: str
    ttl: int


class TaskFence(NamedTuple):
    id: str
    version: int
    action: PromiseCreate | PromiseSettle


class TaskRef(NamedTuple):
    id: str
    version: int


class TaskHeartbeat(NamedTuple):
    pid: str
    tasks: tuple[TaskRef, ...] = ()


class TaskSuspend(NamedTuple):
    id: str
    version: int
    actions: tuple[PromiseRegisterCallback, ...]


class TaskFulfill(NamedTuple):
    id: str
    version: int
    action: PromiseSettle


class TaskRelease(NamedTuple):
    id: str
    version: int


class TaskHalt(NamedTuple):
    id: str


class TaskContinue(NamedTuple):
    id: str


class TaskSearch(NamedTuple):
    state: TaskState | None = None
    limit: int = 100
    cursor: str | None = None
    prefix: str = ""


class ScheduleGet(NamedTuple):
    id: str


class ScheduleCreate(NamedTuple):
    id: str
    cron: str
    promise_id: str
    promise_timeout: int
    promise_param: Payload = EMPTY
    promise_tags: Tags = NO_TAGS


class ScheduleDelete(NamedTuple):
    id: str


class ScheduleSearch(NamedTuple):
    tags: Tags = NO_TAGS
    limit: int = 100
    cursor: str | None = None
    prefix: str = ""


PromiseRequest = (
    PromiseGet | PromiseCreate | PromiseSettle | PromiseRegisterCallback | PromiseRegisterListener | PromiseSearch
)
TaskRequest = (
    TaskGet
    | TaskCreate
    | TaskAcquire
    | TaskFence
    | TaskHeartbeat
    | TaskSuspend
    | TaskFulfill
    | TaskRelease
    | TaskHalt
    | TaskContinue
    | TaskSearch
)
ScheduleRequest = ScheduleGet | ScheduleCreate | ScheduleDelete | ScheduleSearch
Search = PromiseSearch | TaskSearch | ScheduleSearch
Request = PromiseRequest | TaskRequest | ScheduleRequest


class Reply(NamedTuple):
    """An answer. Records are projected at the instant of the request (protocol: reads serve the projection).

    `task` is the record that carries the task. `action` is the inner answer of `task.fence`, whose own status says that
    the fence held. `error` says in words what a status other than 200 and 300 means.
    """

    status: int
    promise: Record | None = None
    task: Record | None = None
    schedule: Schedule | None = None
    preload: tuple[Record, ...] = ()
    action: Reply | None = None
    promises: tuple[Record, ...] = ()
    tasks: tuple[Record, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    cursor: str | None = None
    error: str | None = None


class Execute(NamedTuple):
    """To the target of a promise: its task may be acquired at this version. Lost ones are sent again."""

    id: str
    version: int
    address: str


class Unblock(NamedTuple):
    """To a listener: the promise it listened to is settled. Sent before the listener is forgotten, so perhaps twice."""

    address: str
    promise: Record


Message = Execute | Unblock
