"""Reading and settling promises by id, whatever the id holds."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest

from everstep.clock import NEVER
from everstep.http.paths import segment, segments
from everstep.promise import Payload, State
from everstep.protocol import PromiseCreate, PromiseSettle
from tests.core.http_support import Shop, is_problem, shop, until

O17 = {"id": "o-17", "args": ["o-17", 4200]}
AWKWARD = [
    "a/b",
    "a/tree",
    "x/resolve",
    "tree",
    "with space",
    "100%",
    "50%2Fb",
    "ünï/코드",
    "a+b&c=d?e#f",
    "~'!*",
    "a\\b",
    "<script>",
    "n" * 1000,
]


async def approval(it: Shop) -> str:
    """Start the order and carry it out until it waits for its promise, whose id is returned."""
    await it.post("/workflows/order", O17)
    await until(lambda: any(entry.startswith("mail") for entry in it.ran))
    return it.ran[-1].split(" ", 1)[1]


def test_a_promise_settled_from_outside_lets_the_run_go_on() -> None:
    async def scenario(it: Shop) -> None:
        async with it.working():
            id = await approval(it)
            settled = await it.post(f"/promises/{id}/resolve", {"value": True})
            done = await it.get("/promises/o-17?wait=20")

        assert (settled.status_code, settled.json()["state"], settled.json()["value"]) == (200, "resolved", True)
        assert (done.json()["state"], done.json()["value"]) == ("resolved", "receipt o-17 4200 shipped")
        assert it.ran == ["charge o-17", f"mail {id}"]

    shop(scenario)


def test_settling_twice_with_one_outcome_is_fine_and_with_another_a_conflict() -> None:
    async def scenario(it: Shop) -> None:
        async with it.working():
            id = await approval(it)
            first = await it.post(f"/promises/{id}/resolve", {"value": {"ok": [1, 2]}})
            again = await it.post(f"/promises/{id}/resolve", {"value": {"ok": [1, 2]}})

            assert (again.status_code, again.json()) == (200, first.json())
            is_problem(await it.post(f"/promises/{id}/resolve", {"value": 1}), 409, field="id", kind="already-settled")
            is_problem(await it.post(f"/promises/{id}/reject"), 409, field="id", kind="already-settled")
            is_problem(await it.post(f"/promises/{id}/cancel"), 409, field="id", kind="already-settled")
            assert (await it.get(f"/promises/{id}")).json() == first.json()

    shop(scenario)


@pytest.mark.parametrize(
    ("error", "type_", "message"),
    [
        (None, "Failed", "rejected from outside"),
        ("no stock", "Failed", "no stock"),
        ({"type": "OutOfStock", "message": "none left", "left": 0}, "OutOfStock", "none left"),
    ],
)
def test_a_rejection_carries_its_error(error: Any, type_: str, message: str) -> None:
    async def scenario(it: Shop) -> None:
        async with it.working():
            id = await approval(it)
            settled = await it.post(f"/promises/{id}/reject", None if error is None else {"error": error})
            done = await it.get("/promises/o-17?wait=20")

        for view in (settled.json(), done.json()):
            assert view["state"] == "rejected"
            assert (view["error"]["type"], view["error"]["message"]) == (type_, message)

    shop(scenario)


def test_a_cancelled_run_cancels_what_it_waits_for() -> None:
    async def scenario(it: Shop) -> None:
        async with it.working():
            id = await approval(it)
            await it.post("/promises/o-17/cancel", {})

        assert (await it.get("/promises/o-17")).json()["state"] == "rejected_canceled"
        assert (await it.get(f"/promises/{id}")).json()["state"] == "rejected_canceled"

    shop(scenario)


def test_a_raising_workflow_is_a_state_and_no_500() -> None:
    async def scenario(it: Shop) -> None:
        await it.post("/workflows/broken", {"id": "b"})
        async with it.working():
            answer = await it.get("/promises/b?wait=20")

        assert answer.status_code == 200
        assert answer.json()["state"] == "rejected"
        assert answer.json()["error"]["type"] == "ValueError"

    shop(scenario)


def test_a_halted_run_is_continued() -> None:
    async def scenario(it: Shop) -> None:
        await it.post("/workflows/pay", O17)
        halted = await it.post("/promises/o-17/halt", {"reason": "for a look"})
        assert (halted.json()["task"], halted.json()["reason"]) == ("halted", "for a look")
        assert [one["id"] for one in (await it.get("/promises?state=halted")).json()["promises"]] == ["o-17"]
        await it.post("/promises/o-17/continue")
        async with it.working():
            assert (await it.get("/promises/o-17?wait=20")).json()["state"] == "resolved"

    shop(scenario)


def test_waiting_ends_with_the_pending_promise() -> None:
    async def scenario(it: Shop) -> None:
        await it.post("/workflows/pay", O17)

        for wait in ("0", "0.02", "1e-3"):
            assert (await it.get(f"/promises/o-17?wait={wait}")).json()["state"] == "pending"

    shop(scenario)


def test_waiting_is_held_no_longer_than_allowed() -> None:
    async def scenario(it: Shop) -> None:
        await it.post("/workflows/pay", O17)

        assert (await it.get("/promises/o-17?wait=1000000")).json()["state"] == "pending"

    shop(scenario, max_wait=0.02)


def test_a_server_that_goes_down_answers_those_who_wait() -> None:
    async def scenario(it: Shop) -> None:
        await it.post("/workflows/pay", O17)
        waiting = asyncio.create_task(it.get("/promises/o-17?wait=50"))
        await asyncio.sleep(0.05)
        it.site.stop()

        assert (await asyncio.wait_for(waiting, 5)).json()["state"] == "pending"

    shop(scenario)


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "soon", ""])
def test_a_bad_wait_is_named(wait: str) -> None:
    async def scenario(it: Shop) -> None:
        await it.post("/workflows/pay", O17)
        is_problem(await it.get(f"/promises/o-17?wait={wait}"), 400, field="wait")

    shop(scenario)


@pytest.mark.parametrize("method", ["resolve", "reject", "cancel", "halt", "continue"])
def test_an_unknown_id_is_not_found(method: str) -> None:
    async def scenario(it: Shop) -> None:
        is_problem(await it.post(f"/promises/nope/{method}"), 404, field="id", kind="not-found")
        for path in ("/promises/nope", "/promises/nope?wait=5", "/promises/nope/tree"):
            is_problem(await it.get(path), 404, field="id", kind="not-found")

    shop(scenario)


@pytest.mark.parametrize("id", AWKWARD)
def test_an_id_may_hold_anything_a_path_may(id: str) -> None:
    async def scenario(it: Shop) -> None:
        started = await it.post("/workflows/order", {**O17, "id": id})
        place = started.json()["promise"]

        assert place == f"/promises/{segment(id)}"
        for address in (place, f"/promises/{quote(id, safe='')}"):
            assert (await it.get(address)).json()["id"] == id
            assert (await it.get(f"{address}/tree")).json()["id"] == id
        assert (await it.post(f"{place}/cancel")).json()["id"] == id
        assert [one["id"] for one in (await it.get("/promises")).json()["promises"]] == [id]

    shop(scenario)


@pytest.mark.parametrize("id", AWKWARD)
def test_a_segment_is_read_as_it_was_written(id: str) -> None:
    raw = f"/base/promises/{segment(id)}/tree"

    assert segments({"path": "ignored", "raw_path": raw.encode(), "root_path": "/base"}) == ["promises", id, "tree"]
    assert segments({"path": "", "raw_path": raw.encode(), "root_path": ""}) == ["base", "promises", id, "tree"]


def test_a_mount_with_an_encoded_name_is_taken_off() -> None:
    scope = {"path": "/my app/promises/a/b", "raw_path": b"/my%20app/promises/a%2Fb", "root_path": "/my app"}

    assert segments(scope) == ["promises", "a/b"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/promises/a/b", ["promises", "a/b"]),
        ("/promises/a/b/tree", ["promises", "a/b", "tree"]),
        ("/promises/tree", ["promises", "tree"]),
        ("/schedules/a/b", ["schedules", "a/b"]),
        ("/openapi.json", ["openapi.json"]),
        ("/", [""]),
    ],
)
def test_a_gateway_that_decodes_paths_still_reaches_ids_with_slashes(path: str, expected: list[str]) -> None:
    assert segments({"path": path, "root_path": ""}) == expected


def test_a_slash_that_is_not_encoded_is_not_part_of_an_id() -> None:
    async def scenario(it: Shop) -> None:
        await it.post("/workflows/order", {**O17, "id": "a/b"})

        assert "%2F" in is_problem(await it.get("/promises/a/b"), 404)

    shop(scenario)


def test_an_address_that_is_not_utf8_is_bad_input() -> None:
    async def scenario(it: Shop) -> None:
        is_problem(await it.get("/promises/%ff"), 400, field="path")

    shop(scenario)


def test_a_tree_holds_what_the_run_created_in_order() -> None:
    async def scenario(it: Shop) -> None:
        async with it.working():
            id = await approval(it)
            await it.post(f"/promises/{id}/resolve", {"value": True})
            await it.get("/promises/o-17?wait=20")
        tree = (await it.get("/promises/o-17/tree")).json()

        assert [(one["kind"], one["name"], one["state"]) for one in tree["children"]] == [
            ("step", "charge", "resolved"),
            ("promise", "", "resolved"),
            ("step", "mail", "resolved"),
        ]

    shop(scenario)


def test_search_by_state_tag_and_prefix_a_page_at_a_time() -> None:
    async def scenario(it: Shop) -> None:
        for n in range(5):
            tags = {"team": "ops" if n % 2 else "dev", "n": str(n)}
            await it.post("/workflows/pay", {"id": f"p{n}", "args": ["x", n], "tags": tags})
        await it.post("/workflows/pay", {"id": "q0", "args": ["x", 1]})
        await it.post("/promises/p1/cancel")

        async def ids(query: str) -> list[str]:
            return [one["id"] for one in (await it.get(f"/promises?{query}")).json()["promises"]]

        assert await ids("") == ["p0", "p1", "p2", "p3", "p4", "q0"]
        assert await ids("prefix=q") == ["q0"]
        assert await ids("tag=team=ops") == ["p1", "p3"]
        assert await ids("tag=team:ops&tag=n:3") == ["p3"]
        assert await ids("state=rejected_canceled") == ["p1"]
        assert await ids("state=pending&prefix=p") == ["p0", "p2", "p3", "p4"]
        first = (await it.get("/promises?limit=4")).json()
        assert len(first["promises"]) == 4
        assert await ids(f"limit=4&cursor={quote(first['cursor'])}") == ["p4", "q0"]

    shop(scenario)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=done", "state"),
        ("tag=team", "tag"),
        ("tag==ops", "tag"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=many", "limit"),
        ("roots=maybe", "roots"),
        ("stat=pending", "stat"),
        ("cursor=%00", "cursor"),
        (f"cursor={'x' * 1001}", "cursor"),
        ("prefix=a%00", "prefix"),
        (f"prefix={'x' * 1001}", "prefix"),
    ],
)
def test_a_bad_query_is_named(query: str, field: str) -> None:
    async def scenario(it: Shop) -> None:
        is_problem(await it.get(f"/promises?{query}"), 400, field=field)

    shop(scenario)


@pytest.mark.parametrize(
    ("verb", "body", "field"),
    [
        ("resolve", {"values": 1}, "values"),
        ("reject", {"error": 3}, "error"),
        ("reject", {"error": {"type": 1}}, "error.type"),
        ("reject", {"value": 1}, "value"),
        ("cancel", {"value": 1}, "value"),
        ("halt", {"reason": 1}, "reason"),
    ],
)
def test_bad_settlements_name_the_field_and_settle_nothing(verb: str, body: Any, field: str) -> None:
    async def scenario(it: Shop) -> None:
        await it.post("/workflows/order", O17)
        is_problem(await it.post(f"/promises/o-17/{verb}", body), 400, field=field)
        assert (await it.get("/promises/o-17")).json()["state"] == "pending"

    shop(scenario)


def test_answers_are_strict_json() -> None:
    from everstep.http.strict import dumps

    assert json.loads(dumps({"a": [float("nan"), float("inf"), "\ud800", (1,)], "é": 1})) == {
        "a": ["nan", "inf", "?", [1]],
        "é": 1,
    }


@pytest.mark.parametrize("path", ["/promises/%00", "/promises/%00/tree", "/promises/" + "x" * 1001 + "/tree"])
def test_what_can_be_no_id_is_bad_input_and_no_store_is_asked(path: str) -> None:
    async def scenario(it: Shop) -> None:
        is_problem(await it.get(path), 400, field="id", kind="invalid-id")
        is_problem(await it.http.delete(path.removesuffix("/tree").replace("promises", "schedules")), 400, field="id")

    shop(scenario)


def test_a_schedule_is_no_promise() -> None:
    async def scenario(it: Shop) -> None:
        await it.post("/schedules", {"id": "s", "cron": "0 3 * * *", "workflow": "pay", "args": ["a", 1]})
        row = "/promises/~schedule%2Fs"
        for path in (row, f"{row}?wait=1", f"{row}/tree"):
            is_problem(await it.get(path), 404, field="id")
        for verb in ("resolve", "reject", "cancel", "halt", "continue"):
            is_problem(await it.post(f"{row}/{verb}", {}), 404, field="id")
        assert [one["id"] for one in (await it.get("/schedules")).json()["schedules"]] == ["s"]

    shop(scenario)


def test_a_value_that_cannot_be_read_is_another_outcome() -> None:
    """A client of the protocol may settle with any bytes."""

    async def scenario(it: Shop) -> None:
        await it.client.service.perform(PromiseCreate("p", NEVER))
        await it.client.service.perform(PromiseSettle("p", State.RESOLVED, Payload("no JSON")))
        is_problem(await it.post("/promises/p/resolve", {"value": 1}), 409, field="id", kind="already-settled")
        assert (await it.get("/promises/p")).json()["value"].startswith("the stored text is not JSON")

    shop(scenario)


def test_a_search_for_a_state_shows_no_other() -> None:
    """The deadline of an internal promise is armed nowhere: its row says pending for ever."""

    async def scenario(it: Shop) -> None:
        now = it.client.clock.now()
        await it.client.service.perform(PromiseCreate("over", now + 1))
        await it.client.service.perform(PromiseCreate("open", NEVER))
        while it.client.clock.now() <= now + 1:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        found = (await it.get("/promises?state=pending")).json()["promises"]
        assert [one["id"] for one in found] == ["open"]
        assert (await it.get("/promises/over")).json()["state"] == "rejected_timedout"

    shop(scenario)
