"""The tools over HTTP as an application: who may pass, where it is served, and that it needs nothing around it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from everstep import App, Client, Context, InvalidArgument
from tests.components import requires_component

requires_component("mcp", hint="pip install 'everstep[mcp]'")

from starlette.applications import Starlette  # noqa: E402
from starlette.routing import Mount  # noqa: E402

from everstep.mcp import asgi  # noqa: E402

app = App("desk")


@app.workflow
async def echo(ctx: Context, text: str) -> str:
    return text


LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
HEADERS = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}


def ask(
    talk: Callable[[httpx.AsyncClient], Awaitable[Any]], wrap: Callable[[Any], Any] = lambda site: site, **options: Any
) -> Any:
    async def run() -> Any:
        async with Client.open("memory:", app=app) as client:
            site = asgi(client, app, **options)
            transport = httpx.ASGITransport(wrap(site))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                try:
                    return await talk(http)
                finally:
                    await site.close()

    return asyncio.run(run())


async def post(http: httpx.AsyncClient, path: str = "/mcp", **headers: str) -> httpx.Response:
    return await http.post(path, json=LIST, headers={**HEADERS, **headers})


def test_it_is_served_without_a_lifespan_and_without_a_session() -> None:
    async def talk(http: httpx.AsyncClient) -> list[httpx.Response]:
        return list(await asyncio.gather(*[post(http) for _ in range(5)]))

    for response in ask(talk):
        assert response.status_code == 200
        assert '"name":"echo"' in response.text
        assert "mcp-session-id" not in response.headers


def test_every_request_may_come_on_an_event_loop_of_its_own() -> None:
    site = asgi(Client.open("memory:", app=app), app)

    async def once() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://localhost") as http:
            return (await post(http)).status_code

    assert [asyncio.run(once()) for _ in range(3)] == [200, 200, 200]


def test_a_call_that_is_held_open_ends_with_the_server() -> None:
    call = {**LIST, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "nobody works"}}}

    async def run() -> httpx.Response:
        async with Client.open("memory:", app=app) as client:
            site = asgi(client, app, wait=50)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://localhost") as http:
                held = asyncio.ensure_future(http.post("/mcp", json=call, headers=HEADERS))
                while not (await client.search())[0]:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                await site.close()
                return await held

    assert asyncio.run(asyncio.wait_for(run(), 20)).status_code in (200, 503)


def test_it_is_mounted_in_another_application() -> None:
    mounted = ask(lambda http: post(http, "/tools/mcp"), lambda site: Starlette(routes=[Mount("/tools", app=site)]))

    assert mounted.status_code == 200


def test_another_address_is_a_problem() -> None:
    response = ask(lambda http: post(http, "/else"))

    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert "/mcp" in response.json()["detail"]


@pytest.mark.parametrize(
    ("header", "status"),
    [({}, 401), ({"authorization": "Bearer wrong"}, 401), ({"authorization": "Basic open sesame"}, 401),
     ({"authorization": "Bearer opén"}, 401), ({"authorization": "bearer open sesame"}, 200)],
)  # fmt: skip
def test_a_token_is_asked_for(header: dict[str, str], status: int) -> None:
    async def talk(http: httpx.AsyncClient) -> httpx.Response:
        encoded = {name.encode(): value.encode() for name, value in {**HEADERS, **header}.items()}
        return await http.post("/mcp", json=LIST, headers=encoded)

    assert ask(talk, auth="open sesame").status_code == status


def test_an_empty_token_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="empty token"):
        ask(post, auth="")


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"host": "localhost:8002"}, True),
        ({"host": "evil.example"}, False),
        ({"host": "localhost", "origin": "http://evil.example"}, False),
        ({"host": "localhost", "origin": "http://localhost:3000"}, True),
    ],
)
def test_a_page_that_was_led_here_under_another_name_is_refused(headers: dict[str, str], allowed: bool) -> None:
    response = ask(lambda http: post(http, **headers), hosts=("localhost",))

    assert (response.status_code == 200) is allowed
    assert allowed or response.status_code in (403, 421)


@pytest.mark.parametrize("limits", [{"wait": -1}, {"max_wait": 1e9}, {"wait": float("nan")}])
def test_limits_out_of_range_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument, match="seconds"):
        ask(post, **limits)
