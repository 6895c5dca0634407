"""The protocol's envelope: what is read, what is refused with the field named, and what is answered."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstep import protocol_json
from everstep.clock import NEVER
from everstep.promise import EMPTY, Payload, Record, Schedule, State, Task, TaskState
from everstep.protocol import (
    Execute,
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
from everstep.protocol_json import BadRequest, parse, render, render_error, render_message
from everstep.record_json import from_wire, to_wire

HEAD = {"corrId": "c-1", "version": "2026-04-01"}


def envelope(kind: str, **data: Any) -> dict[str, Any]:
    return {"kind": kind, "head": HEAD, "data": data}


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


CREATE = envelope(
    "promise.create", id="a", timeoutAt=5, param={"data": b64("1"), "headers": {"h": "x"}}, tags={"k": "v"}
)
SETTLE = envelope("promise.settle", id="a", state="resolved", value={"data": b64("1")})
CALLBACK = envelope("promise.register_callback", awaited="p", awaiter="a")
REQUESTS: list[tuple[dict[str, Any], Request]] = [
    (envelope("promise.get", id="a.1"), PromiseGet("a.1")),
    (CREATE, PromiseCreate("a", 5, Payload("1", {"h": "x"}), {"k": "v"})),
    (envelope("promise.create", id="a", timeoutAt=2**63), PromiseCreate("a", NEVER)),
    (envelope("promise.create", id="a", timeoutAt=5.0, param={}, tags=None), PromiseCreate("a", 5)),
    (SETTLE, PromiseSettle("a", State.RESOLVED, Payload("1"))),
    (envelope("promise.settle", id="a", state="rejected_canceled"), PromiseSettle("a", State.CANCELED)),
    (CALLBACK, PromiseRegisterCallback("p", "a")),
    (
        envelope("promise.register_listener", awaited="p", address="poll://any@x"),
        PromiseRegisterListener("p", "poll://any@x"),
    ),
    (
        envelope("promise.search", state="pending", tags={"k": "v"}, limit=5, cursor="c"),
        PromiseSearch(State.PENDING, {"k": "v"}, 5, "c"),
    ),
    (envelope("promise.search", limit=5000), PromiseSearch(limit=1000)),
    (envelope("task.get", id="a"), TaskGet("a")),
    (
        envelope("task.create", pid="w", ttl=5, action=CREATE),
        TaskCreate("w", 5, PromiseCreate("a", 5, Payload("1", {"h": "x"}), {"k": "v"})),
    ),
    (envelope("task.acquire", id="a", version=0, pid="w", ttl=5), TaskAcquire("a", 0, "w", 5)),
    (
        envelope("task.fence", id="t", version=1, action=SETTLE),
        TaskFence("t", 1, PromiseSettle("a", State.RESOLVED, Payload("1"))),
    ),
    (
        envelope("task.heartbeat", pid="w", tasks=[{"id": "a", "version": 1}]),
        TaskHeartbeat("w", (TaskRef("a", 1),)),
    ),
    (envelope("task.heartbeat", pid="w", tasks=[]), TaskHeartbeat("w")),
    (
        envelope("task.suspend", id="a", version=1, actions=[CALLBACK]),
        TaskSuspend("a", 1, (PromiseRegisterCallback("p", "a"),)),
    ),
    (envelope("task.suspend", id="a", version=1, actions=[]), TaskSuspend("a", 1, ())),
    (
        envelope("task.fulfill", id="a", version=1, action=SETTLE),
        TaskFulfill("a", 1, PromiseSettle("a", State.RESOLVED, Payload("1"))),
    ),
    (envelope("task.release", id="a", version=1), TaskRelease("a", 1)),
    (envelope("task.halt", id="a"), TaskHalt("a")),
    (envelope("task.continue", id="a"), TaskContinue("a")),
    (envelope("task.search", state="suspended"), TaskSearch(TaskState.SUSPENDED)),
    (envelope("schedule.get", id="s"), ScheduleGet("s")),
    (
        envelope(
            "schedule.create", id="s", cron="* * * * *", promiseId="{{.id}}", promiseTimeout=9, promiseTags={"k": "v"}
        ),
        ScheduleCreate("s", "* * * * *", "{{.id}}", 9, EMPTY, {"k": "v"}),
    ),
    (envelope("schedule.delete", id="s"), ScheduleDelete("s")),
    (envelope("schedule.search", tags={"k": "v"}), ScheduleSearch({"k": "v"})),
]


@pytest.mark.parametrize(("sent", "request_"), REQUESTS)
def test_every_request_is_read(sent: dict[str, Any], request_: Request) -> None:
    assert parse(sent) == request_
    assert type(parse(sent)) is type(request_)
    assert protocol_json.kind_of(request_) == sent["kind"]


def test_every_kind_is_covered() -> None:
    assert {sent["kind"] for sent, _ in REQUESTS} == set(protocol_json._PARSERS)
    assert len(protocol_json._PARSERS) == 21


def waiting(awaited: str) -> dict[str, Any]:
    return envelope("promise.register_callback", awaiter="a", awaited=awaited)


def test_a_fan_in_of_thousands_may_wait_and_a_page_may_end_with_any_row() -> None:
    many = parse(envelope("task.suspend", id="a", version=1, actions=[waiting(f"a.{n}") for n in range(9_000)]))
    assert isinstance(many, TaskSuspend)
    assert len(many.actions) == 9_000
    ended = "~schedule/" + "x" * 1000
    assert parse(envelope("schedule.search", cursor=ended)) == ScheduleSearch(cursor=ended)


BAD: list[tuple[object, str]] = [
    ([], "request"),
    (None, "request"),
    ({}, "kind"),
    ({"kind": 5}, "kind"),
    ({"kind": "promise.explode", "head": HEAD, "data": {}}, "kind"),
    ({"kind": "promise.get", "data": {"id": "a"}}, "head"),
    ({"kind": "promise.get", "head": {"version": "x"}, "data": {"id": "a"}}, "head.corrId"),
    ({"kind": "promise.get", "head": {"corrId": "x"}, "data": {"id": "a"}}, "head.version"),
    ({"kind": "promise.get", "head": HEAD}, "data"),
    (envelope("promise.get"), "data.id"),
    (envelope("promise.get", id=""), "data.id"),
    (envelope("promise.get", id=5), "data.id"),
    (envelope("promise.get", id="a..b"), "data.id"),
    (envelope("promise.get", id="x" * 1001), "data.id"),
    (envelope("promise.get", id="~schedule/x"), "data.id"),
    (envelope("promise.create", id="a"), "data.timeoutAt"),
    (envelope("promise.create", id="a", timeoutAt=-1), "data.timeoutAt"),
    (envelope("promise.create", id="a", timeoutAt=1.5), "data.timeoutAt"),
    (envelope("promise.create", id="a", timeoutAt="5"), "data.timeoutAt"),
    (envelope("promise.create", id="a", timeoutAt=True), "data.timeoutAt"),
    (envelope("promise.create", id="a", timeoutAt=5, param="x"), "data.param"),
    (envelope("promise.create", id="a", timeoutAt=5, param={"data": 5}), "data.param.data"),
    (envelope("promise.create", id="a", timeoutAt=5, param={"headers": {"h": 5}}), "data.param.headers.h"),
    (envelope("promise.create", id="a", timeoutAt=5, tags=[]), "data.tags"),
    (envelope("promise.create", id="a", timeoutAt=5, tags={"k": None}), "data.tags.k"),
    (envelope("promise.settle", id="a", state="pending"), "data.state"),
    (envelope("promise.settle", id="a", state="rejected_timedout"), "data.state"),
    (envelope("promise.settle", id="a"), "data.state"),
    (envelope("promise.register_callback", awaited="p"), "data.awaiter"),
    (envelope("promise.register_listener", awaited="p", address=""), "data.address"),
    (envelope("promise.search", state="open"), "data.state"),
    (envelope("promise.search", limit=0), "data.limit"),
    (envelope("promise.search", cursor=5), "data.cursor"),
    (envelope("promise.search", cursor="\0"), "data.cursor"),
    (envelope("task.search", cursor="x" * 1001), "data.cursor"),
    (envelope("schedule.search", cursor="~schedule/" + "x" * 1001), "data.cursor"),
    (envelope("task.create", ttl=5, action=CREATE), "data.pid"),
    (envelope("task.create", pid="w", action=CREATE), "data.ttl"),
    (envelope("task.create", pid="w", ttl=5), "data.action"),
    (envelope("task.create", pid="w", ttl=5, action=SETTLE), "data.action.kind"),
    (
        envelope("task.create", pid="w", ttl=5, action={"kind": "promise.create", "data": {"id": "a"}}),
        "data.action.data.timeoutAt",
    ),
    (envelope("task.acquire", id="a", pid="w", ttl=5), "data.version"),
    (envelope("task.fence", id="a", version=1, action=CALLBACK), "data.action.kind"),
    (envelope("task.heartbeat", pid="w"), "data.tasks"),
    (envelope("task.heartbeat", pid="w", tasks=[{"id": "a"}]), "data.tasks[0].version"),
    (envelope("task.suspend", id="a", version=1), "data.actions"),
    (envelope("task.suspend", id="a", version=1, actions=[SETTLE]), "data.actions[0].kind"),
    (envelope("task.suspend", id="b", version=1, actions=[CALLBACK]), "data.actions[0].data.awaiter"),
    (
        envelope("task.suspend", id="a", version=1, actions=[waiting("p" + ".1" * 400) for _ in range(50)]),
        "data.actions",
    ),
    (envelope("task.fulfill", id="b", version=1, action=SETTLE), "data.action.data.id"),
    (envelope("task.search", state="resolved"), "data.state"),
    (envelope("schedule.create", id="s", promiseId="x", promiseTimeout=5), "data.cron"),
    (envelope("schedule.create", id="s", cron="* * * * *", promiseTimeout=5), "data.promiseId"),
    (envelope("schedule.create", id="s", cron="* * * * *", promiseId="x"), "data.promiseTimeout"),
]


@pytest.mark.parametrize(("sent", "field"), BAD)
def test_400_names_the_field(sent: object, field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(sent)

    assert caught.value.field == field
    assert str(caught.value).startswith(field)


PROMISE = Record(
    "a", State.RESOLVED, "", "a", Payload("1", {"h": "x"}), Payload("2"), {"k": "v"}, 9, 1, 5, ("t",), ("l",)
)
AS_JSON = {
    "id": "a",
    "state": "resolved",
    "param": {"data": b64("1"), "headers": {"h": "x"}},
    "value": {"data": b64("2")},
    "tags": {"k": "v"},
    "timeoutAt": 9,
    "createdAt": 1,
    "settledAt": 5,
}
LEASED = Record("t", State.PENDING, task=Task(TaskState.ACQUIRED, 3, "w", 50, 99, resumes=("p", "q")))
TASK_JSON = {"id": "t", "state": "acquired", "version": 3, "resumes": 2, "ttl": 50, "pid": "w"}
OPEN_JSON = {"id": "t", "state": "pending", "param": {}, "value": {}, "tags": {}, "timeoutAt": NEVER, "createdAt": 0}
SCHEDULE = Schedule("s", "* * * * *", "x", 5, Payload("1"), {"k": "v"}, 1, 60, 30)
SCHEDULE_JSON = {
    "id": "s",
    "cron": "* * * * *",
    "promiseId": "x",
    "promiseTimeout": 5,
    "promiseParam": {"data": b64("1")},
    "promiseTags": {"k": "v"},
    "createdAt": 1,
    "nextRunAt": 60,
    "lastRunAt": 30,
}


@pytest.mark.parametrize(
    ("request_", "reply", "data"),
    [
        (PromiseGet("a"), Reply(200, promise=PROMISE), {"promise": AS_JSON}),
        (PromiseGet("a"), Reply(404, error="there is no promise 'a'"), "there is no promise 'a'"),
        (TaskGet("t"), Reply(200, task=LEASED), {"task": TASK_JSON}),
        (
            TaskAcquire("t", 2, "w", 50),
            Reply(200, promise=LEASED, task=LEASED, preload=(PROMISE,)),
            {"promise": OPEN_JSON, "task": TASK_JSON, "preload": [AS_JSON]},
        ),
        (TaskSuspend("t", 2, ()), Reply(200), {}),
        (TaskSuspend("t", 2, ()), Reply(300, preload=(PROMISE,)), {"preload": [AS_JSON]}),
        (TaskHeartbeat("w"), Reply(200), {}),
        (
            TaskFence("t", 1, PromiseGet("a")),  # type: ignore[arg-type]
            Reply(200, action=Reply(200, promise=PROMISE)),
            {
                "action": {
                    "kind": "promise.get",
                    "head": {"corrId": "c-1", "status": 200, "version": "2026-04-01"},
                    "data": {"promise": AS_JSON},
                },
                "preload": [],
            },
        ),
        (PromiseSearch(), Reply(200, promises=(PROMISE,), cursor="x"), {"promises": [AS_JSON], "cursor": "x"}),
        (TaskSearch(), Reply(200, tasks=(LEASED,)), {"tasks": [TASK_JSON]}),
        (ScheduleSearch(), Reply(200, schedules=(SCHEDULE,)), {"schedules": [SCHEDULE_JSON]}),
        (ScheduleGet("s"), Reply(200, schedule=SCHEDULE), {"schedule": SCHEDULE_JSON}),
        (ScheduleDelete("s"), Reply(200), {}),
    ],
)
def test_answers(request_: Request, reply: Reply, data: object) -> None:
    assert render(request_, reply, "c-1") == {
        "kind": protocol_json.kind_of(request_),
        "head": {"corrId": "c-1", "status": reply.status, "version": "2026-04-01"},
        "data": data,
    }


@pytest.mark.parametrize(
    ("sent", "kind", "correlation"),
    [
        (envelope("promise.get"), "promise.get", "c-1"),
        ({"kind": 5, "head": {"corrId": 5}}, "error", ""),
        ([], "error", ""),
        ({"head": "x"}, "error", ""),
    ],
)
def test_c4_also_what_cannot_be_read_is_answered_in_the_envelope(sent: object, kind: str, correlation: str) -> None:
    assert render_error(sent, 400, "no") == {
        "kind": kind,
        "head": {"corrId": correlation, "status": 400, "version": "2026-04-01"},
        "data": "no",
    }


def test_messages() -> None:
    assert render_message(Execute("t", 3, "poll://any@x"), "http://server") == {
        "kind": "execute",
        "head": {"serverUrl": "http://server"},
        "data": {"task": {"id": "t", "version": 3}},
    }
    assert render_message(Unblock("http://x", PROMISE)) == {
        "kind": "unblock",
        "head": {},
        "data": {"promise": AS_JSON},
    }


@given(st.none() | st.text() | st.binary().map(lambda data: base64.b64encode(data).decode()))
def test_a_payload_comes_back_as_it_went_in(data: str | None) -> None:
    assert to_wire(from_wire(data, {"h": "x"})) == {"headers": {"h": "x"}} | ({} if data is None else {"data": data})


@given(st.text())
def test_text_in_base64_is_stored_as_text(text: str) -> None:
    """So that a workflow reads what a client in another language wrote."""
    assert from_wire(b64(text)) == Payload(text)


def test_what_is_no_text_is_stored_as_it_came() -> None:
    raw = base64.b64encode(b"\xff\xfe").decode()

    for data in (raw, "YR==", "YQ", "not base64"):
        assert from_wire(data) == Payload(data, {"everstep:opaque": "1"})
    assert from_wire(b64("1"), {"everstep:opaque": "1"}) == Payload("1")
