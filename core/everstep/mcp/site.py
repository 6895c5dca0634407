"""The streamable HTTP transport as an ASGI application that needs no care: it starts with the first request, or with
the lifespan where it gets one, and holds no sessions, so that a client of an instance that is gone goes on with the
next one.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from everstep.errors import InvalidArgument

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send


class Site:
    """An ASGI application; `everstep.mcp.asgi` documents its arguments."""

    def __init__(self, server: Server[Any], path: str, auth: str | None, hosts: Sequence[str] | None) -> None:
        if auth == "":
            raise InvalidArgument("auth is an empty token, which would let everybody pass; leave it out to mean that")
        self.server = server
        self._path = path.rstrip("/") or "/"
        self._auth = auth
        self._security = None if hosts is None else _only(hosts)
        self._serving: _Serving | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/") or "/"
        if path != self._path:
            await _problem(404, f"there is nothing at {path}; tools are served at {self._path}")(scope, receive, send)
            return
        if self._auth is not None and not self._may_pass(Headers(scope=scope)):
            answer = _problem(401, "a valid bearer token is needed", {"www-authenticate": "Bearer"})
            await answer(scope, receive, send)
            return
        serving = await self.start()
        await serving.handle(scope, receive, send)

    def _may_pass(self, headers: Headers) -> bool:
        assert self._auth is not None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(errors="replace"), self._auth.encode())
        return scheme.lower() == "bearer" and same

    async def start(self) -> _Serving:
        """Begin to serve on this event loop, if that was not done yet. Functions may get a loop for each request."""
        loop = asyncio.get_running_loop()
        if self._serving is None or self._serving.loop is not loop:
            manager = StreamableHTTPSessionManager(self.server, stateless=True, security_settings=self._security)
            self._serving = _Serving(loop, manager)
        await self._serving.ready.wait()
        return self._serving

    async def close(self) -> None:
        """End every call that is held open; runs go on."""
        serving, self._serving = self._serving, None
        if serving is not None and serving.loop is asyncio.get_running_loop():
            await serving.stop()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})


class _Serving:
    """The manager at work on one event loop, which it ends with."""

    def __init__(self, loop: asyncio.AbstractEventLoop, manager: StreamableHTTPSessionManager) -> None:
        self.loop = loop
        self.manager = manager
        self.ready = asyncio.Event()
        self._over = asyncio.Event()
        self._held: set[asyncio.Future[None]] = set()
        self._task = loop.create_task(self._run())

    async def _run(self) -> None:
        async with self.manager.run():
            self.ready.set()
            await self._over.wait()

    async def stop(self) -> None:
        held = list(self._held)
        for one in held:
            one.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        self._over.set()
        await self._task

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; one that is held open at the stop is ended in form."""
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        held = asyncio.ensure_future(self.manager.handle_request(scope, receive, sending))
        self._held.add(held)
        try:
            await asyncio.wait([held])
        finally:
            self._held.discard(held)
            held.cancel()
        if not held.cancelled():
            held.result()
        elif begun:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await _problem(503, "the server goes down; what was started goes on")(scope, receive, send)


def _only(hosts: Sequence[str]) -> TransportSecuritySettings:
    shown = [f"[{host}]" if ":" in host else host for host in hosts]
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[name for host in shown for name in (host, f"{host}:*")],
        allowed_origins=[f"{scheme}://{name}" for host in shown for name in (host, f"{host}:*")
                         for scheme in ("http", "https")],
    )  # fmt: skip


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    body = {"status": status, "detail": detail}
    return JSONResponse(body, status, headers, media_type="application/problem+json")
