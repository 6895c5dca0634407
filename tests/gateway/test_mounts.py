"""The same app wherever ASGI goes: under a prefix of FastAPI and Starlette, and through Mangum as Lambda calls it."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from everstep import Runtime
from everstep.clock import NEVER
from everstep.http import Messenger, asgi
from everstep.protocol import VERSION
from tests.components import requires_component
from tests.core.http_support import make_app

requires_component("fastapi", hint="pip install -e '.[test]'")
requires_component("mangum", hint="pip install -e '.[test]'")

import httpx  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from mangum import Mangum  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.routing import Mount  # noqa: E402


def envelope(kind: str, **data: Any) -> dict[str, Any]:
    return {"kind": kind, "head": {"corrId": "c", "version": VERSION}, "data": data}


CREATE = envelope("promise.create", id="p/1.é", timeoutAt=NEVER, param={}, tags={"resonate:external": "true"})


@pytest.mark.parametrize("framework", ["fastapi", "starlette"])
def test_mounted_under_a_prefix(framework: str) -> None:
    async def play() -> None:
        app = make_app([])
        async with Runtime(app, "memory:") as runtime:
            site = asgi(runtime.client, app)
            outer: Any = Starlette(routes=[Mount("/flows", site)]) if framework == "starlette" else FastAPI()
            if framework == "fastapi":
                outer.mount("/flows", site)

                @outer.get("/own")
                async def own() -> dict[str, str]:
                    return {"own": "route"}

            transport = httpx.ASGITransport(app=outer)
            async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
                answer = await http.post("/flows/", json=CREATE)
                assert answer.status_code == 200
                assert answer.json()["data"]["promise"]["id"] == "p/1.é"
                assert (await http.get("/flows/promises/p%2F1.%C3%A9")).json()["state"] == "pending"
                assert (await http.post("/flows/", json=envelope("promise.get", id="no"))).status_code == 404
                started = await http.post("/flows/workflows/pay", json={"id": "o-1", "args": ["o-1", 1]})
                assert started.headers["location"] == "/flows/promises/o-1"
                described = (await http.get("/flows/openapi.json")).json()
                assert described["servers"] == [{"url": "/flows"}]
                assert "/" in described["paths"]
                assert (await http.get("/own")).status_code == (200 if framework == "fastapi" else 404)

    asyncio.run(asyncio.wait_for(play(), 60))


def function_url(method: str, path: str, body: Any = None, encoded: bool = False) -> dict[str, Any]:
    """An event as a function URL sends it."""
    text = None if body is None else json.dumps(body)
    if encoded and text is not None:
        text = base64.b64encode(text.encode()).decode()
    return {
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
        "headers": {"content-type": "application/json", "host": "x.lambda-url.eu-west-1.on.aws"},
        "requestContext": {
            "accountId": "1", "apiId": "x", "domainName": "x.lambda-url.eu-west-1.on.aws", "requestId": "r",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "t"},
        },
        "body": text, "isBase64Encoded": encoded,
    }  # fmt: skip


def body_of(answer: Any) -> bytes:
    """Mangum encodes what it does not take for text."""
    body: str = answer["body"]
    return base64.b64decode(body) if answer["isBase64Encoded"] else body.encode()


def test_through_mangum_as_a_lambda_function() -> None:
    app = make_app([])
    site = asgi("memory:mangum", app, messages=Messenger())
    handler = Mangum(site, lifespan="off")

    def call(*event: Any, **options: Any) -> tuple[int, Any]:
        answer = handler(function_url(*event, **options), None)  # type: ignore[arg-type]
        return answer["statusCode"], json.loads(body_of(answer))

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        for encoded in (False, True):
            status, body = call("POST", "/", CREATE, encoded=encoded)
            assert (status, body["data"]["promise"]["id"]) == (200, "p/1.é")
        status, body = call("POST", "/", envelope("promise.get", id="no"))
        assert (status, body["head"]["status"]) == (404, 404)
        status, body = call("POST", "/workflows/pay", {"id": "o-1", "args": ["o-1", 1]})
        assert (status, body["id"]) == (202, "o-1")
        status, body = call("GET", "/poll/g/w")
        assert (status, body["status"]) == (501, 501)
        assert "pushed" in body["detail"]
        loop.run_until_complete(site.close())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
