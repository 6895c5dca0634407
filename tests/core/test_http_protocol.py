"""`POST /`: every kind of request in the protocol's envelope, every refusal in it too, and what is refused changes
nothing (rule C4)."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from everstep import StoreUnavailable
from everstep.clock import NEVER
from everstep.protocol import VERSION
from tests.core.http_support import JSON, Shop, shop

TARGET = {"resonate:target": "poll://any@workers"}
LATER = NEVER


def b64(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def envelope(kind: str, data: Any, **head: Any) -> dict[str, Any]:
    return {"kind": kind, "head": {"corrId": "c-1", "version": VERSION, **head}, "data": data}


def is_envelope(answer: httpx.Response, kind: str | None = None) -> Any:
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"kind", "head", "data"}
    assert body["head"]["status"] == answer.status_code
    assert body["head"]["version"] == VERSION
    if kind is not None:
        assert body["kind"] == kind
        assert body["head"]["corrId"] == "c-1"
    return body["data"]


async def ask(it: Shop, status: int, kind: str, **data: Any) -> Any:
    answer = await it.post("/", envelope(kind, data))
    assert answer.status_code == status, answer.text
    return is_envelope(answer, kind)


def create(id: str, **tags: str) -> dict[str, Any]:
    return {"id": id, "timeoutAt": LATER, "param": {"data": b64([1]), "headers": {"h": "x"}}, "tags": tags}


def settle(id: str, state: str = "resolved", value: Any = None) -> dict[str, Any]:
    return {"id": id, "state": state, "value": {"data": b64(value)}}


def inner(kind: str, data: Any) -> dict[str, Any]:
    return {"kind": kind, "head": {"corrId": "c-2", "version": VERSION}, "data": data}


def test_promises_are_created_read_and_settled() -> None:
    async def scenario(it: Shop) -> None:
        made = (await ask(it, 200, "promise.create", **create("p.1", k="v")))["promise"]
        assert made == {
            "id": "p.1",
            "state": "pending",
            "param": {"data": b64([1]), "headers": {"h": "x"}},
            "value": {},
            "tags": {"k": "v"},
            "timeoutAt": NEVER,
            "createdAt": made["createdAt"],
        }
        assert (await ask(it, 200, "promise.create", **create("p.1", k="other")))["promise"] == made
        assert (await ask(it, 200, "promise.get", id="p.1"))["promise"] == made
        await ask(it, 404, "promise.get", id="nobody")
        done = (await ask(it, 200, "promise.settle", **settle("p.1", "rejected", "no")))["promise"]
        assert (done["state"], done["value"]) == ("rejected", {"data": b64("no")})
        assert (await ask(it, 200, "promise.settle", **settle("p.1")))["promise"] == done
        await ask(it, 404, "promise.settle", **settle("nobody"))
        await ask(it, 400, "promise.settle", **settle("p.1", "rejected_timedout"))

    shop(scenario)


def test_a_task_goes_through_its_life() -> None:
    async def scenario(it: Shop) -> None:
        action = inner("promise.create", create("t", **TARGET))
        taken = await ask(it, 200, "task.create", pid="w", ttl=60_000, action=action)
        assert (taken["task"]["state"], taken["task"]["version"], taken["preload"]) == ("acquired", 1, [])
        await ask(it, 409, "task.create", pid="w", ttl=60_000, action=action)
        held = {"id": "t", "version": 1}
        fenced = await ask(it, 200, "task.fence", **held, action=inner("promise.create", create("t.1", **TARGET)))
        assert fenced["action"]["kind"] == "promise.create"
        assert fenced["action"]["head"]["status"] == 200
        assert fenced["action"]["data"]["promise"]["id"] == "t.1"
        await ask(it, 409, "task.fence", id="t", version=7, action=inner("promise.create", create("t.2")))
        await ask(it, 200, "task.heartbeat", pid="w", tasks=[held])
        await ask(it, 200, "task.heartbeat", pid="w", tasks=[])
        waits = inner("promise.register_callback", {"awaiter": "t", "awaited": "t.1"})
        assert await ask(it, 200, "task.suspend", **held, actions=[waits]) == {}
        assert (await ask(it, 200, "task.get", id="t"))["task"]["state"] == "suspended"
        await ask(it, 200, "promise.settle", **settle("t.1", value=7))
        assert (await ask(it, 200, "task.get", id="t"))["task"]["state"] == "pending"
        again = await ask(it, 200, "task.acquire", id="t", version=1, pid="w2", ttl=1000)
        assert again["task"]["version"] == 2
        await ask(it, 409, "task.acquire", id="t", version=1, pid="w3", ttl=1000)
        ready = await ask(it, 300, "task.suspend", id="t", version=2, actions=[waits])
        assert ready == {"preload": []}
        await ask(it, 200, "task.release", id="t", version=2)
        await ask(it, 200, "task.acquire", id="t", version=2, pid="w", ttl=1000)
        await ask(it, 200, "task.halt", id="t")
        await ask(it, 409, "task.release", id="t", version=3)
        await ask(it, 200, "task.continue", id="t")
        await ask(it, 200, "task.acquire", id="t", version=3, pid="w", ttl=1000)
        done = await ask(
            it, 200, "task.fulfill", id="t", version=4, action=inner("promise.settle", settle("t", value=1))
        )
        assert done["promise"]["state"] == "resolved"
        await ask(it, 404, "task.get", id="t.9")
        await ask(it, 422, "promise.register_callback", awaiter="p", awaited="t")

    shop(scenario)


def test_preload_holds_the_branch_but_not_the_task_itself() -> None:
    async def scenario(it: Shop) -> None:
        branch = {"resonate:branch": "t"}
        action = inner("promise.create", create("t", **TARGET, **branch))
        await ask(it, 200, "task.create", pid="w", ttl=60_000, action=action)
        for id in ("t.1", "t.2"):
            await ask(it, 200, "promise.create", **create(id, **branch))
        await ask(it, 200, "promise.create", **create("t.1.1"))
        await ask(it, 200, "task.release", id="t", version=1)
        taken = await ask(it, 200, "task.acquire", id="t", version=1, pid="w", ttl=1)
        assert [one["id"] for one in taken["preload"]] == ["t.1", "t.2"]

    shop(scenario)


def test_a_listener_is_told_and_an_internal_promise_takes_none() -> None:
    async def scenario(it: Shop) -> None:
        await ask(it, 200, "promise.create", **create("in"))
        await ask(it, 200, "promise.create", **create("out", **{"resonate:scope": "global"}))
        address = "poll://uni@g/w"
        await ask(it, 422, "promise.register_listener", awaited="in", address=address)
        await ask(it, 400, "promise.register_listener", awaited="out", address="nowhere")
        await ask(it, 404, "promise.register_listener", awaited="nobody", address=address)
        await ask(it, 200, "promise.register_listener", awaited="out", address=address)
        hub = it.hub
        with hub.connect("g", "w", lambda id: True) as connection:
            await ask(it, 200, "promise.settle", **settle("out", value="hi"))
            said = json.loads(await connection.next(5) or "")
        assert said["kind"] == "unblock"
        assert said["data"]["promise"]["value"] == {"data": b64("hi")}

    shop(scenario)


def test_searches_turn_pages() -> None:
    async def scenario(it: Shop) -> None:
        for n in range(5):
            await ask(it, 200, "promise.create", **create(f"p{n}", odd=str(n % 2)))
        await ask(it, 200, "promise.create", **create("t", **TARGET))
        found, cursor = [], None
        while True:
            page = await ask(it, 200, "promise.search", limit=2, tags={"odd": "0"}, cursor=cursor)
            found += [one["id"] for one in page["promises"]]
            cursor = page.get("cursor")
            if cursor is None:
                break
        assert found == ["p0", "p2", "p4"]
        tasks = await ask(it, 200, "task.search", state="pending")
        assert [one["id"] for one in tasks["tasks"]] == ["t"]
        assert (await ask(it, 200, "promise.search", state="resolved"))["promises"] == []
        await ask(it, 400, "promise.search", limit=0)
        await ask(it, 400, "promise.search", state="lost")

    shop(scenario)


def test_schedules_come_and_go() -> None:
    async def scenario(it: Shop) -> None:
        wanted = {
            "id": "nightly",
            "cron": "0 3 * * *",
            "promiseId": "{{.id}}.{{.timestamp}}",
            "promiseTimeout": 1000,
            "promiseParam": {"data": b64(1)},
            "promiseTags": TARGET,
        }
        made = (await ask(it, 200, "schedule.create", **wanted))["schedule"]
        assert wanted.items() <= made.items()
        assert (await ask(it, 200, "schedule.get", id="nightly"))["schedule"] == made
        assert (await ask(it, 200, "schedule.search"))["schedules"] == [made]
        await ask(it, 400, "schedule.create", **{**wanted, "id": "other", "cron": "never"})
        await ask(it, 200, "schedule.delete", id="nightly")
        await ask(it, 404, "schedule.delete", id="nightly")
        await ask(it, 404, "schedule.get", id="nightly")

    shop(scenario)


DEEP = "[" * 100_000 + "]" * 100_000
REFUSED: list[tuple[str, int, Any]] = [
    ("no JSON", 400, b"{"),
    ("nothing", 400, b""),
    ("no UTF-8", 400, b'{"kind": "\xff"}'),
    ("a list", 400, []),
    ("a text", 400, "promise.get"),
    ("deep", 400, DEEP.encode()),
    ("NaN", 400, b'{"kind":"promise.get","head":{"corrId":"c","version":"2026-04-01"},"data":{"id":NaN}}'),
    ("half a pair", 400, b'{"kind":"promise.get","head":{"corrId":"\\ud800","version":"2026-04-01"},"data":{}}'),
    ("too large", 413, envelope("promise.create", create("x" * 2_000_000))),
    ("no kind", 400, {"head": {"corrId": "c", "version": VERSION}, "data": {}}),
    ("unknown kind", 400, envelope("promise.destroy", {"id": "p"})),
    ("a kind that is no text", 400, {**envelope("promise.get", {"id": "p"}), "kind": 7}),
    ("no head", 400, {"kind": "promise.get", "data": {"id": "p"}}),
    ("no correlation", 400, {"kind": "promise.get", "head": {"version": VERSION}, "data": {"id": "p"}}),
    ("no version", 400, {"kind": "promise.get", "head": {"corrId": "c"}, "data": {"id": "p"}}),
    ("an older version", 400, envelope("promise.get", {"id": "p"}, version="2025-01-15")),
    ("no data", 400, {"kind": "promise.get", "head": {"corrId": "c", "version": VERSION}}),
    ("data that is a list", 400, envelope("promise.get", [])),
    ("an id that is a number", 400, envelope("promise.get", {"id": 7})),
    ("an empty id", 400, envelope("promise.create", create(""))),
    ("a dotted end", 400, envelope("promise.create", create("p."))),
    ("a NUL", 400, envelope("promise.create", create("p\0"))),
    ("a long id", 400, envelope("promise.create", create("p" * 1001))),
    ("an id of ours", 400, envelope("promise.create", create("~schedule/p"))),
    ("a negative deadline", 400, envelope("promise.create", {**create("p"), "timeoutAt": -1})),
    ("a deadline that is true", 400, envelope("promise.create", {**create("p"), "timeoutAt": True})),
    ("a tag that is a number", 400, envelope("promise.create", {**create("p"), "tags": {"k": 1}})),
    ("data that is no text", 400, envelope("promise.create", {**create("p"), "param": {"data": {}}})),
    ("a debug request", 403, envelope("debug.reset", {})),
    ("an action of another kind", 400, envelope("task.create", {"pid": "w", "ttl": 1, "action": inner("x", {})})),
    ("another awaiter", 400, envelope("task.suspend", {"id": "t", "version": 1, "actions": [
        inner("promise.register_callback", {"awaiter": "u", "awaited": "p"})]})),
    ("fulfilling another", 400, envelope("task.fulfill", {"id": "t", "version": 1, "action": inner(
        "promise.settle", settle("u"))})),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_malformed_is_refused_in_the_envelope_and_changes_nothing(status: int, body: Any) -> None:
    async def scenario(it: Shop) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await it.http.post("/", content=data, headers=JSON)
        assert answer.status_code == status
        assert isinstance(is_envelope(answer), str)
        assert (await ask(it, 200, "promise.search"))["promises"] == []

    shop(scenario)


def test_bad_base64_comes_back_exactly_as_it_was_sent() -> None:
    async def scenario(it: Shop) -> None:
        for n, data in enumerate(("not base64!", "", "YQ", "////", "YWJj\n")):
            await ask(it, 200, "promise.create", id=f"p{n}", timeoutAt=LATER, param={"data": data})
            assert (await ask(it, 200, "promise.get", id=f"p{n}"))["promise"]["param"] == {"data": data}

    shop(scenario)


@pytest.mark.parametrize("id", ["a/b c", "a/.b/x", "é\u2028", "%2e", "a'\";--", "promises", "0" * 1000, "p.d3f"])
def test_hostile_ids_are_ids(id: str) -> None:
    async def scenario(it: Shop) -> None:
        await ask(it, 200, "promise.create", **create(id))
        assert (await ask(it, 200, "promise.get", id=id))["promise"]["id"] == id
        assert (await ask(it, 200, "promise.settle", **settle(id)))["promise"]["state"] == "resolved"

    shop(scenario)


def test_a_body_that_does_not_claim_to_be_json_and_a_wrong_host_are_refused_in_the_envelope_too() -> None:
    async def scenario(it: Shop) -> None:
        asked = json.dumps(envelope("promise.get", {"id": "p"}))
        answer = await it.http.post("/", content=asked, headers={"content-type": "text/plain"})
        assert answer.status_code == 415
        is_envelope(answer)
        answer = await it.http.post("/", content=asked, headers={**JSON, "host": "evil.example"})
        assert answer.status_code == 403
        is_envelope(answer)
        answer = await it.http.post("/", content=asked, headers={**JSON, "sec-fetch-site": "cross-site"})
        assert answer.status_code == 403
        is_envelope(answer)

    shop(scenario, hosts=("shop",))


def test_a_store_in_trouble_is_503_and_a_mistake_of_ours_500_in_the_envelope() -> None:
    async def scenario(it: Shop) -> None:
        async def broken(request: Any) -> Any:
            raise failure

        it.client.service.perform = broken  # type: ignore[method-assign]
        for failure, status in ((StoreUnavailable("away"), 503), (RuntimeError("secret"), 500)):
            answer = await it.post("/", envelope("promise.get", {"id": "p"}))
            assert answer.status_code == status
            assert "secret" not in is_envelope(answer, "promise.get")

    shop(scenario)


def test_the_call_of_a_workflow_of_ours_is_written_as_sdks_read_it() -> None:
    async def scenario(it: Shop) -> None:
        async with it.working():
            await it.client.options(id="elsewhere", target="poll://any@ts").start("greet", "eve", 2)
            shown = (await ask(it, 200, "promise.get", id="elsewhere"))["promise"]
            assert json.loads(base64.b64decode(shown["param"]["data"])) == {
                "func": "greet", "args": ["eve", 2], "version": 1,
            }  # fmt: skip
            call = {"func": "pay", "args": ["o-1"], "kwargs": {"cents": 5}, "version": 1}
            tags = {"resonate:target": it.app.target}
            await ask(it, 200, "promise.create", id="ours.1", timeoutAt=LATER, param={"data": b64(call)}, tags=tags)
            view = (await it.get("/promises/ours.1?wait=20")).json()
            assert (view["name"], view["args"], view["value"]) == ("pay", ["o-1"], "receipt o-1 5")
            call = {"func": "broken", "args": []}
            await ask(it, 200, "promise.create", id="ours.2", timeoutAt=LATER, param={"data": b64(call)}, tags=tags)
            assert (await it.get("/promises/ours.2?wait=20")).json()["state"] == "rejected"
            shown = (await ask(it, 200, "promise.get", id="ours.2"))["promise"]
            error = json.loads(base64.b64decode(shown["value"]["data"]))
            assert (error["__type"], error["name"], error["message"]) == ("error", "ValueError", "no luck")

    shop(scenario)
