"""The protocol's JSON envelope, version 2026-04-01: requests in, answers and messages out.

Shape is checked here, meaning in the kernel: what passes is a request, what does not is a BadRequest naming the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .clock import NEVER
from .errors import InvalidId, UsageError
from .ids import check_any
from .promise import EMPTY, NO_TAGS, SCHEDULE_PREFIX, Payload, State, Tags, TaskState
from .protocol import (
    VERSION,
    Execute,
    Message,
    PromiseCreate,
    PromiseGet,
    PromiseRegisterCallback,
    PromiseRegisterListener,
    PromiseSearch,
    PromiseSettle,
    Reply,
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
    TaskRef,
    TaskRelease,
    TaskSearch,
    TaskSuspend,
    Unblock,
)
from .record_json import from_wire, promise_json, schedule_json, task_json

_SETTLEMENTS = (State.RESOLVED, State.REJECTED, State.CANCELED)
_MAX_LIMIT = 1000
_MAX_AWAITED = 20_000
"""Ids that a suspension may have looked up: what it names, and whatever may carry it as a timer."""


class BadRequest(UsageError, ValueError):
    """The envelope is malformed (status 400). `field` is the dotted path of what is wrong."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


class _Fields:
    """A JSON object under a path; each method returns one field, checked."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, Mapping):
            raise BadRequest(path, "must be an object")
        self.value: Mapping[str, Any] = value
        self.path = path

    def at(self, name: str) -> str:
        return f"{self.path}.{name}"

    def get(self, name: str) -> Any:
        """The value, None where it is absent or null."""
        return self.value.get(name)

    def text(self, name: str) -> str:
        value = self.get(name)
        if not isinstance(value, str) or not value:
            raise BadRequest(self.at(name), "must be a string that is not empty")
        return value

    def id(self, name: str) -> str:
        value = self._checked(self.get(name), name)
        if value.startswith(SCHEDULE_PREFIX):
            raise BadRequest(self.at(name), f"may not begin with {SCHEDULE_PREFIX!r}")
        return value

    def _checked(self, value: Any, name: str) -> str:
        try:
            return check_any(value, self.at(name))
        except InvalidId as error:
            raise BadRequest(self.at(name), str(error).removeprefix(self.at(name)).strip()) from None

    def count(self, name: str, default: int | None = None) -> int:
        value = self.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise BadRequest(self.at(name), "must be an integer of at least 0")
        return value

    def limit(self) -> int:
        limit = self.count("limit", 100)
        if limit == 0:
            raise BadRequest(self.at("limit"), "must be at least 1")
        return min(limit, _MAX_LIMIT)

    def cursor(self) -> str | None:
        """The id of the row that the page before ended with."""
        if self.get("cursor") is None:
            return None
        cursor = self.text("cursor")
        self._checked(cursor.removeprefix(SCHEDULE_PREFIX), "cursor")
        return cursor

    def strings(self, name: str) -> Tags:
        value = self.get(name)
        if value is None:
            return NO_TAGS
        if not isinstance(value, Mapping):
            raise BadRequest(self.at(name), "must be an object of strings")
        for key, text in value.items():
            if not isinstance(key, str) or not isinstance(text, str):
                raise BadRequest(f"{self.at(name)}.{key}", "must be a string")
        return dict(value)

    def payload(self, name: str) -> Payload:
        if self.get(name) is None:
            return EMPTY
        inner = _Fields(self.get(name), self.at(name))
        data = inner.get("data")
        if data is not None and not isinstance(data, str):
            raise BadRequest(inner.at("data"), "must be a string")
        return from_wire(data, inner.strings("headers"))

    def settlement(self, name: str) -> State:
        value = self.get(name)
        for state in _SETTLEMENTS:
            if value == state.value:
                return state
        raise BadRequest(self.at(name), f"must be one of {', '.join(state.value for state in _SETTLEMENTS)}")

    def action(self, name: str, *kinds: str) -> Request:
        """A request inside a request: `{kind, head, data}` again."""
        return self.nested(self.get(name), self.at(name), kinds)

    def actions(self, name: str, *kinds: str) -> list[Request]:
        value = self.get(name)
        if not isinstance(value, list | tuple):
            raise BadRequest(self.at(name), "must be an array")
        return [self.nested(one, f"{self.at(name)}[{index}]", kinds) for index, one in enumerate(value)]

    def nested(self, value: object, path: str, kinds: tuple[str, ...]) -> Request:
        outer = _Fields(value, path)
        kind = outer.get("kind")
        if kind not in kinds:
            raise BadRequest(f"{path}.kind", f"must be {' or '.join(kinds)}")
        return _PARSERS[kind](_Fields(outer.get("data"), f"{path}.data"))


def parse(envelope: object) -> Request:
    """The request in an envelope `{kind, head, data}`. Raises BadRequest naming the field."""
    outer = _Fields(envelope, "request")
    kind = outer.get("kind")
    parser = _PARSERS.get(kind) if isinstance(kind, str) else None
    if parser is None:
        raise BadRequest("kind", f"{kind!r} is not a request of protocol {VERSION}")
    head = _Fields(outer.get("head"), "head")
    if not isinstance(head.get("corrId"), str):
        raise BadRequest("head.corrId", "must be a string")
    if not isinstance(head.get("version"), str):
        raise BadRequest("head.version", "must be a string")
    return parser(_Fields(outer.get("data"), "data"))


def _create(data: _Fields) -> PromiseCreate:
    timeout_at = min(data.count("timeoutAt"), NEVER)
    return PromiseCreate(data.id("id"), timeout_at, data.payload("param"), data.strings("tags"))


def _settle(data: _Fields) -> PromiseSettle:
    return PromiseSettle(data.id("id"), data.settlement("state"), data.payload("value"))


def _callback(data: _Fields) -> PromiseRegisterCallback:
    return PromiseRegisterCallback(data.id("awaited"), data.id("awaiter"))


def _promise_search(data: _Fields) -> PromiseSearch:
    return PromiseSearch(_state(data, State), data.strings("tags"), data.limit(), data.cursor())


def _state(data: _Fields, kind: Any) -> Any:
    value = data.get("state")
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        raise BadRequest(data.at("state"), f"must be one of {', '.join(one.value for one in kind)}") from None


def _task_create(data: _Fields) -> TaskCreate:
    action = data.action("action", "promise.create")
    assert isinstance(action, PromiseCreate)
    return TaskCreate(data.text("pid"), data.count("ttl"), action)


def _acquire(data: _Fields) -> TaskAcquire:
    return TaskAcquire(data.id("id"), data.count("version"), data.text("pid"), data.count("ttl"))


def _fence(data: _Fields) -> TaskFence:
    action = data.action("action", "promise.create", "promise.settle")
    assert isinstance(action, PromiseCreate | PromiseSettle)
    return TaskFence(data.id("id"), data.count("version"), action)


def _heartbeat(data: _Fields) -> TaskHeartbeat:
    tasks = data.get("tasks")
    if not isinstance(tasks, list | tuple):
        raise BadRequest(data.at("tasks"), "must be an array")
    refs = [_Fields(one, f"{data.at('tasks')}[{index}]") for index, one in enumerate(tasks)]
    return TaskHeartbeat(data.text("pid"), tuple([TaskRef(ref.id("id"), ref.count("version")) for ref in refs]))


def _suspend(data: _Fields) -> TaskSuspend:
    id = data.id("id")
    actions: list[PromiseRegisterCallback] = []
    for index, action in enumerate(data.actions("actions", "promise.register_callback")):
        assert isinstance(action, PromiseRegisterCallback)
        if action.awaiter != id:
            raise BadRequest(f"{data.at('actions')}[{index}].data.awaiter", "must be the id of the task")
        actions.append(action)
    if sum(1 + action.awaited.count(".") for action in actions) > _MAX_AWAITED:
        raise BadRequest(data.at("actions"), "name more than can be looked up at once")
    return TaskSuspend(id, data.count("version"), tuple(actions))


def _fulfill(data: _Fields) -> TaskFulfill:
    action = data.action("action", "promise.settle")
    assert isinstance(action, PromiseSettle)
    id = data.id("id")
    if action.id != id:
        raise BadRequest(f"{data.at('action')}.data.id", "must be the id of the task")
    return TaskFulfill(id, data.count("version"), action)


def _schedule_create(data: _Fields) -> ScheduleCreate:
    return ScheduleCreate(
        data.id("id"),
        data.text("cron"),
        data.text("promiseId"),
        min(data.count("promiseTimeout"), NEVER),
        data.payload("promiseParam"),
        data.strings("promiseTags"),
    )


_PARSERS: dict[str, Callable[[_Fields], Request]] = {
    "promise.get": lambda data: PromiseGet(data.id("id")),
    "promise.create": _create,
    "promise.settle": _settle,
    "promise.register_callback": _callback,
    "promise.register_listener": lambda data: PromiseRegisterListener(data.id("awaited"), data.text("address")),
    "promise.search": _promise_search,
    "task.get": lambda data: TaskGet(data.id("id")),
    "task.create": _task_create,
    "task.acquire": _acquire,
    "task.fence": _fence,
    "task.heartbeat": _heartbeat,
    "task.suspend": _suspend,
    "task.fulfill": _fulfill,
    "task.release": lambda data: TaskRelease(data.id("id"), data.count("version")),
    "task.halt": lambda data: TaskHalt(data.id("id")),
    "task.continue": lambda data: TaskContinue(data.id("id")),
    "task.search": lambda data: TaskSearch(_state(data, TaskState), data.limit(), data.cursor()),
    "schedule.get": lambda data: ScheduleGet(data.id("id")),
    "schedule.create": _schedule_create,
    "schedule.delete": lambda data: ScheduleDelete(data.id("id")),
    "schedule.search": lambda data: ScheduleSearch(data.strings("tags"), data.limit(), data.cursor()),
}
_KINDS: dict[type[Any], str] = {
    PromiseGet: "promise.get",
    PromiseCreate: "promise.create",
    PromiseSettle: "promise.settle",
    PromiseRegisterCallback: "promise.register_callback",
    PromiseRegisterListener: "promise.register_listener",
    PromiseSearch: "promise.search",
    TaskGet: "task.get",
    TaskCreate: "task.create",
    TaskAcquire: "task.acquire",
    TaskFence: "task.fence",
    TaskHeartbeat: "task.heartbeat",
    TaskSuspend: "task.suspend",
    TaskFulfill: "task.fulfill",
    TaskRelease: "task.release",
    TaskHalt: "task.halt",
    TaskContinue: "task.continue",
    TaskSearch: "task.search",
    ScheduleGet: "schedule.get",
    ScheduleCreate: "schedule.create",
    ScheduleDelete: "schedule.delete",
    ScheduleSearch: "schedule.search",
}


def kind_of(request: Request) -> str:
    """The kind a request has on the wire."""
    return _KINDS[type(request)]


def correlation_of(envelope: object) -> str:
    """The correlation id of an envelope that may be malformed; "" where there is none."""
    head = envelope.get("head") if isinstance(envelope, Mapping) else None
    value = head.get("corrId") if isinstance(head, Mapping) else None
    return value if isinstance(value, str) else ""


def render(request: Request, reply: Reply, correlation: str = "") -> dict[str, Any]:
    """The answer to a request in the protocol's envelope (rule C4)."""
    return _envelope(kind_of(request), correlation, reply.status, _data(request, reply, correlation))


def render_error(envelope: object, status: int, message: str) -> dict[str, Any]:
    """An answer to an envelope that could not be read or served, in the protocol's envelope all the same (rule C4)."""
    kind = envelope.get("kind") if isinstance(envelope, Mapping) else None
    return _envelope(kind if isinstance(kind, str) else "error", correlation_of(envelope), status, message)


def render_message(message: Message, server_url: str | None = None) -> dict[str, Any]:
    """A message in the protocol's form."""
    head = {"serverUrl": server_url} if server_url else {}
    match message:
        case Execute():
            return {"kind": "execute", "head": head, "data": {"task": {"id": message.id, "version": message.version}}}
        case Unblock():
            return {"kind": "unblock", "head": head, "data": {"promise": promise_json(message.promise)}}


def _envelope(kind: str, correlation: str, status: int, data: object) -> dict[str, Any]:
    return {"kind": kind, "head": {"corrId": correlation, "status": status, "version": VERSION}, "data": data}


def _data(request: Request, reply: Reply, correlation: str) -> object:
    if reply.status not in (200, 300):
        return reply.error or ""
    data: dict[str, Any] = {}
    if reply.promise is not None:
        data["promise"] = promise_json(reply.promise)
    if reply.task is not None:
        data["task"] = task_json(reply.task)
    if reply.schedule is not None:
        data["schedule"] = schedule_json(reply.schedule)
    if reply.cursor is not None:
        data["cursor"] = reply.cursor
    match request:
        case TaskFence():
            assert reply.action is not None
            data["action"] = render(request.action, reply.action, correlation)
            data["preload"] = [promise_json(one) for one in reply.preload]
        case TaskCreate() | TaskAcquire():
            data["preload"] = [promise_json(one) for one in reply.preload]
        case TaskSuspend() if reply.status == 300:
            data["preload"] = [promise_json(one) for one in reply.preload]
        case PromiseSearch():
            data["promises"] = [promise_json(one) for one in reply.promises]
        case TaskSearch():
            data["tasks"] = [task_json(one) for one in reply.tasks]
        case ScheduleSearch():
            data["schedules"] = [schedule_json(one) for one in reply.schedules]
        case _:
            pass
    return data
