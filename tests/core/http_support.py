"""A small application over the memory store, and a caller of its HTTP API that needs no server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from tests.components import requires_component

requires_component("httpx", hint="pip install -e '.[test]'")
requires_component("starlette", hint="pip install -e '.[test]'")

import httpx  # noqa: E402

from everstep import App, Context, Runtime  # noqa: E402
from everstep.http import asgi  # noqa: E402
from everstep.http.application import Application  # noqa: E402
from everstep.http.hub import Hub  # noqa: E402
from everstep.http.messages import Messenger  # noqa: E402

JSON = {"content-type": "application/json"}


class Shop:
    """The runtime, its ASGI app, and an HTTP client of it. `ran` names each step that ran."""

    def __init__(self, app: App, runtime: Runtime, site: Application, http: httpx.AsyncClient, ran: list[str]) -> None:
        self.app = app
        self.runtime = runtime
        self.client = runtime.client
        self.site = site
        self.http = http
        self.ran = ran

    @property
    def hub(self) -> Hub:
        """Where workers that pull get their messages."""
        messages = self.client.service.deliver
        assert isinstance(messages, Messenger)
        assert messages.hub is not None
        return messages.hub

    async def post(self, path: str, body: Any = None, **kwargs: Any) -> httpx.Response:
        content = None if body is None else json.dumps(body)
        return await self.http.post(path, content=content, headers=JSON, **kwargs)

    async def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return await self.http.get(path, **kwargs)

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """While inside, runs are carried out."""
        task = asyncio.create_task(self.runtime.serve())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until a condition holds that nobody signals; the scenario's limit ends it otherwise."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


def make_app(ran: list[str]) -> App:
    app = App("shop")

    @app.step
    def charge(order: str, cents: int) -> str:
        ran.append(f"charge {order}")
        return f"receipt {order} {cents}"

    @app.step
    def mail(promise: str) -> None:
        ran.append(f"mail {promise}")

    @app.workflow
    async def order(ctx: Context, id: str, cents: int) -> str:
        receipt = await ctx.run(charge, id, cents)
        approval = ctx.promise(tags={"ask": "boss"})
        await ctx.run(mail, approval.id)
        return f"{receipt} {'shipped' if await approval else 'dropped'}"

    @app.workflow
    async def pay(ctx: Context, id: str, cents: int) -> str:
        return await ctx.run(charge, id, cents)

    @app.workflow
    async def broken(ctx: Context) -> None:
        raise ValueError("no luck")

    return app


def shop(
    scenario: Callable[[Shop], Coroutine[Any, Any, None]],
    *,
    mount: Callable[[Application], Any] | None = None,
    **options: Any,
) -> None:
    """Run a scenario against a fresh shop."""

    async def play() -> None:
        ran: list[str] = []
        app = make_app(ran)
        async with Runtime(app, "memory:") as runtime:
            site = asgi(runtime.client, app, **options)
            outer: Any = site if mount is None else mount(site)
            transport = httpx.ASGITransport(app=outer)
            async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
                await scenario(Shop(app, runtime, site, http, ran))

    asyncio.run(asyncio.wait_for(play(), 60))


def is_problem(response: httpx.Response, status: int, *, field: str | None = None, kind: str | None = None) -> str:
    """Assert a problem document and return its detail."""
    body = response.json()
    assert response.status_code == status, body
    assert response.headers["content-type"] == "application/problem+json"
    assert body["status"] == status
    assert body["type"].startswith("urn:everstep:")
    assert body["title"]
    assert body.get("field") == field
    if kind is not None:
        assert body["type"] == f"urn:everstep:{kind}"
    detail = body["detail"]
    assert isinstance(detail, str)
    return detail
