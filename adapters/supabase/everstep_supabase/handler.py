"""The function, as an ASGI app: any Python HTTP endpoint, behind the Edge Function relay or none.

`POST /wake` is a wake-up, `POST /webhook` a Database Webhook, `POST /sweep` the sweep; they carry the secret header,
and nothing is read before that is checked. Everything else is the HTTP API, for whoever `auth` lets in. The due row is
the alarm (rule W9): while it is due the bell rings again, whatever was answered.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from everstep.client import Client
from everstep.driver import Done
from everstep.errors import InvalidArgument, PlatformError
from everstep.events import EventRefused
from everstep.hosting import Host
from everstep.ports import Wake
from everstep.wakers.local import LocalWaker
from everstep.wakers.message import wake_from_json

from .auth import SECRET_HEADER, NotAllowed, check_secret, same, verify_token
from .events import webhook
from .rows import unescaped
from .waker import PostgresWaker

if TYPE_CHECKING:
    from everstep.clock import Clock
    from everstep.http.auth import Auth
    from everstep.ports import Store, Waker
    from everstep.registry import App

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
MOST = 32_000_000
"""Bytes of a request's body."""
_log = logging.getLogger("everstep.supabase")


def handler(
    app: App,
    store: str | Store | None = None,
    *,
    secret: str | None = None,
    auth: Auth | str | None = None,
    timeout: float = 60,
    row_key: str = "id",
    steps_per_invocation: int | None = None,
    clock: Clock | None = None,
    http: Mapping[str, Any] | None = None,
) -> Function:
    """One App as an ASGI app.

    Args:
        store: a `postgresql://` URL or an open store; by default EVERSTEP_STORE, then DATABASE_URL, then SUPABASE_URL
            with SUPABASE_SERVICE_ROLE_KEY (over PostgREST).
        secret: of the header `x-everstep-secret`, 16 bytes at least; EVERSTEP_SECRET by default.
        auth: who may use the HTTP API: a bearer token, or a callable (see everstep.http). By default Supabase's users
            and the service role, by SUPABASE_JWT_SECRET or the keys that SUPABASE_URL publishes; where neither is set,
            nobody.
        timeout: seconds that the platform lets a request live.
        row_key: the column by which Database Webhooks identify a row.
        steps_per_invocation: end an invocation after so many checkpoints; None: when the body waits.
        http: further options of the HTTP API, such as `secret` for signed links.

    Raises:
        InvalidArgument: the secret is missing or too short, or no store is named.
    """
    found = secret if secret is not None else os.environ.get("EVERSTEP_SECRET", "")
    return Function(
        app,
        store if store is not None else _store_of_environment(),
        check_secret(found),
        auth=auth if auth is not None else _auth_of_environment(),
        timeout=timeout,
        row_key=row_key,
        steps_per_invocation=steps_per_invocation,
        clock=clock,
        http=http or {},
    )


class Function:
    """The ASGI app; `handler` documents its arguments."""

    def __init__(
        self,
        app: App,
        store: str | Store,
        secret: bytes,
        *,
        auth: Auth | str,
        timeout: float,
        row_key: str,
        steps_per_invocation: int | None,
        clock: Clock | None,
        http: Mapping[str, Any],
    ) -> None:
        self.app = app
        self._store = store
        self._secret = secret
        self._auth = auth
        self._timeout = round(timeout * 1000)
        self._row_key = row_key
        self._steps = steps_per_invocation
        self._clock = clock
        self._http = dict(http)
        self._hosts: WeakKeyDictionary[asyncio.AbstractEventLoop, Host] = WeakKeyDictionary()
        self._apis: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._api()(scope, receive, send)
            return
        act = {"/wake": self._wake, "/webhook": self._webhook, "/sweep": self._sweep}.get(scope["path"])
        if act is None or scope["method"] != "POST":
            await self._api()(scope, receive, send)
            return
        began = time.monotonic()
        given = dict(scope["headers"]).get(SECRET_HEADER.encode(), b"").decode("latin-1")
        if not same(given, self._secret):
            await _reply(send, 401, {"title": f"the header {SECRET_HEADER} does not hold"})
            return
        try:
            status, said = await act(await _body(receive), began)
        except (InvalidArgument, EventRefused) as error:
            _log.error("%s cannot be understood: %s", scope["path"], error)
            status, said = 400, {"title": str(error)}
        except PlatformError as error:
            _log.warning("%s must come again: %s: %s", scope["path"], type(error).__name__, error)
            status, said = 503, {"title": str(error)}
        await _reply(send, status, said)

    async def _wake(self, body: bytes, began: float) -> tuple[int, dict[str, Any]]:
        wake = wake_from_json(body)

        def remaining() -> int:
            return self._timeout - round((time.monotonic() - began) * 1000)

        answer = await self.host.deliver(Wake(unescaped(wake.id), wake.version), remaining=remaining)
        return (200, {}) if isinstance(answer, Done) else (202, {"again_at": answer.at})

    async def _webhook(self, body: bytes, began: float) -> tuple[int, dict[str, Any]]:
        return 200, {"started": await self.host.dispatch(webhook(body, key=self._row_key))}

    async def _sweep(self, body: bytes, began: float) -> tuple[int, dict[str, Any]]:
        return 200, (await self.host.sweep()).to_dict()

    @property
    def host(self) -> Host:
        """What runs the App on this event loop."""
        loop = asyncio.get_running_loop()
        host = self._hosts.get(loop)
        if host is None:
            from everstep.stores import open_store

            store = open_store(self._store) if isinstance(self._store, str) else self._store
            able: Any = store
            # pg_cron looks every second: nobody sleeps until an instant, so that arming needs no bell.
            waker: Waker = PostgresWaker(able, listeners=False) if hasattr(store, "poke") else LocalWaker()
            host = self._hosts[loop] = Host(
                self.app,
                Client(store, waker, app=self.app, clock=self._clock),
                pid=f"supabase-{os.getpid()}-{os.urandom(4).hex()}",
                lease=self._timeout + 1000,
                steps_per_invocation=self._steps,
            )
        return host

    def _api(self) -> Any:
        """The HTTP API, made when it is first asked for: a function that is only woken never loads it."""
        loop = asyncio.get_running_loop()
        api = self._apis.get(loop)
        if api is None:
            api = self._apis[loop] = self.host.asgi(auth=self._auth, **self._http)
        return api


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidArgument("the caller went away before it had said everything")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST:
            raise InvalidArgument(f"the body has more than {MOST} bytes")
        if not message.get("more_body"):
            return b"".join(parts)


async def _reply(send: Send, status: int, said: Mapping[str, Any]) -> None:
    body = json.dumps({"status": status, **said} if status >= 400 else said).encode()
    kind = b"application/problem+json" if status >= 400 else b"application/json"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _store_of_environment() -> str | Store:
    if url := os.environ.get("EVERSTEP_STORE") or os.environ.get("DATABASE_URL"):
        return url
    url, key = os.environ.get("SUPABASE_URL"), os.environ.get("SUPABASE_SERVICE_ROLE_KEY")
    if not url or not key:
        raise InvalidArgument("no store: set EVERSTEP_STORE or DATABASE_URL, or SUPABASE_URL with its service role key")
    from .rpc import RpcStore

    return RpcStore(url, key)


def _auth_of_environment() -> Auth:
    secret, url = os.environ.get("SUPABASE_JWT_SECRET"), os.environ.get("SUPABASE_URL")
    if not secret and not url:
        return lambda request: False
    return supabase_auth(secret=secret) if secret else supabase_auth(url=url)


def supabase_auth(**options: Any) -> Auth:
    """Supabase's tokens as the `auth` of the HTTP API; `verify_token` documents the options."""
    from everstep.http.problems import Problem  # starlette comes with it

    check = verify_token(**options)

    async def allowed(request: Any) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        try:
            # Keys may have to be fetched, which blocks.
            await asyncio.get_running_loop().run_in_executor(None, check, token.strip())
        except NotAllowed as error:
            if error.status == 403:
                raise PermissionError(str(error)) from None
            if error.status == 503:
                raise Problem(503, str(error), headers={"retry-after": "5"}) from None
            return False
        return True

    return allowed
