"""POST /workflows/{name}: the start is durable before the answer, the same start again is the same answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from everstep import Client
from everstep.http import asgi
from tests.core.http_support import JSON, Shop, httpx, is_problem, shop

O17 = {"id": "o-17", "args": ["o-17"], "kwargs": {"cents": 4200}, "tags": {"team": "ops"}}


def test_a_start_is_durable_before_the_answer_and_nothing_has_run_yet() -> None:
    async def scenario(it: Shop) -> None:
        answer = await it.post("/workflows/order", O17)

        assert answer.status_code == 202
        assert answer.json()["id"] == "o-17"
        assert answer.headers["location"] == answer.json()["promise"] == "/promises/o-17"
        assert it.ran == []
        view = (await it.get("/promises/o-17")).json()
        assert (view["state"], view["name"], view["args"]) == ("pending", "order", ["o-17", 4200])
        assert view["tags"]["team"] == "ops"

    shop(scenario)


def test_the_same_start_again_is_the_same_answer_and_runs_once() -> None:
    async def scenario(it: Shop) -> None:
        first = await it.post("/workflows/pay", O17)
        async with it.working():
            await it.get("/promises/o-17?wait=20")
            again = await it.post("/workflows/pay", {**O17, "args": ["o-17", 4200], "kwargs": {}})

        assert (again.status_code, again.json()) == (first.status_code, first.json())
        assert it.ran == ["charge o-17"]

    shop(scenario)


def test_different_work_under_the_same_id_is_a_conflict_unless_one_attaches() -> None:
    """Rule I6."""

    async def scenario(it: Shop) -> None:
        await it.post("/workflows/order", O17)
        other = {**O17, "kwargs": {"cents": 1}}

        is_problem(await it.post("/workflows/order", other), 409, field="id", kind="conflict")
        is_problem(await it.post("/workflows/pay", O17), 409, field="id", kind="conflict")
        attached = await it.post("/workflows/order", {**other, "on_conflict": "attach"})
        assert (attached.status_code, attached.json()["id"]) == (202, "o-17")

    shop(scenario)


def test_without_an_id_one_is_made_up() -> None:
    async def scenario(it: Shop) -> None:
        ids = [(await it.post("/workflows/pay", {"args": ["x", 1]})).json()["id"] for _ in range(2)]

        assert ids[0] != ids[1]
        assert (await it.get(f"/promises/{ids[0]}")).status_code == 200

    shop(scenario)


def test_timeout_is_in_seconds() -> None:
    async def scenario(it: Shop) -> None:
        await it.post("/workflows/order", {**O17, "timeout": 1.5})
        view = (await it.get("/promises/o-17")).json()

        assert view["timeout_at"] - view["created_at"] == 1500

    shop(scenario)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**O17, "id": "a.b"}, "id"),
        ({**O17, "id": ""}, "id"),
        ({**O17, "id": 7}, "id"),
        ({**O17, "id": "x" * 1001}, "id"),
        ({**O17, "id": "~schedule/x"}, "id"),
        ({**O17, "args": "o-17"}, "args"),
        ({**O17, "args": ["o-17", "many"], "kwargs": {}}, "args"),
        ({**O17, "args": []}, "args"),
        ({**O17, "kwargs": []}, "kwargs"),
        ({**O17, "kwargs": {"cents": 1, "dollars": 2}}, "args"),
        ({"id": "x", "kwargs": {"dollars": 2}}, "args"),
        ({**O17, "timeout": -1}, "timeout"),
        ({**O17, "timeout": "3"}, "timeout"),
        ({**O17, "timeout": True}, "timeout"),
        ({**O17, "timeout": 1e308}, "timeout"),
        ({**O17, "timeout": 10**400}, "timeout"),
        ({**O17, "tags": {"a": 1}}, "tags"),
        ({**O17, "tags": ["a"]}, "tags"),
        ({**O17, "tags": {"resonate:target": "poll://any@g"}}, "tags"),
        ({**O17, "tags": {"everstep:retention": "1"}}, "tags"),
        ({**O17, "on_conflict": "ignore"}, "on_conflict"),
        ({**O17, "arguments": []}, "arguments"),
        ([], "body"),
        ("text", "body"),
    ],
)
def test_bad_input_names_the_field_and_starts_nothing(body: Any, field: str) -> None:
    async def scenario(it: Shop) -> None:
        assert is_problem(await it.post("/workflows/order", body), 400, field=field)
        assert (await it.get("/promises")).json()["promises"] == []

    shop(scenario)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "",
        '{"args": [NaN, 1]}',
        '{"args": [1e999, 1]}',
        '{"args": [-Infinity, 1]}',
        '{"args": ["\\ud800", 1]}',
        "[" * 100_000,
        "\xff",
    ],
)
def test_what_is_not_strict_json_is_refused(text: str) -> None:
    async def scenario(it: Shop) -> None:
        answer = await it.http.post("/workflows/order", content=text.encode("latin-1"), headers=JSON)

        is_problem(answer, 400, field="args" if not text else "body")

    shop(scenario)


def test_an_unknown_workflow_is_not_found_and_the_known_ones_are_named() -> None:
    async def scenario(it: Shop) -> None:
        detail = is_problem(await it.post("/workflows/nope", O17), 404, field="name", kind="unknown-function")

        assert "order" in detail
        assert (await it.get("/workflows")).json()["workflows"][0] == {
            "name": "order",
            "version": 1,
            "parameters": ["id", "cents"],
        }

    shop(scenario)


def test_a_client_without_an_app_starts_what_the_site_knows() -> None:
    async def scenario(it: Shop) -> None:
        stranger = Client(it.runtime.store, it.runtime.waker)
        transport = httpx.ASGITransport(app=asgi(stranger, it.app))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
            is_problem(await http.post("/workflows/nope", json=O17), 404, field="name", kind="unknown-function")
            is_problem(await http.post("/workflows/pay", json={"id": "x", "args": [1]}), 400, field="args")
            assert (await http.post("/workflows/pay", json=O17)).status_code == 202
        async with it.working():
            assert (await it.get("/promises/o-17?wait=20")).json()["state"] == "resolved"

    shop(scenario)


def test_a_large_body_is_refused_by_its_length_and_while_it_streams() -> None:
    async def scenario(it: Shop) -> None:
        async def stream() -> Any:
            for _ in range(3):
                yield b'"' + b"x" * 50

        text = json.dumps({**O17, "args": ["x" * 200, 1]})
        is_problem(await it.http.post("/workflows/order", content=text, headers=JSON), 413, field="body")
        is_problem(await it.http.post("/workflows/order", content=stream(), headers=JSON), 413, field="body")
        announced = {**JSON, "content-length": "1000000"}
        is_problem(await it.http.post("/workflows/order", content=b"{}", headers=announced), 413, field="body")

    shop(scenario, max_body=100)


def test_a_body_that_is_not_said_to_be_json_is_refused() -> None:
    """A form of another site could send it (browsers ask first only for other types)."""

    async def scenario(it: Shop) -> None:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            answer = await it.http.post("/workflows/order", content=json.dumps(O17), headers={"content-type": kind})
            is_problem(answer, 415)

    shop(scenario)
