"""What a function answers: wake-ups, events, sweeps, and the HTTP API on everything else.

A wake-up is answered 200 when its obligation is durable elsewhere, 409 where the same task is to come again at once,
and 500 in trouble: 429 and 503 would slow the whole queue down (rule W9). Where it is to come at a later instant, it is
armed for that instant, and then acknowledged. Nothing but the caller's token is read before that is verified.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from everstep.client import Client
from everstep.driver import Done
from everstep.errors import InvalidArgument, PlatformError
from everstep.events import Event, EventRefused, run_id
from everstep.hosting import Host
from everstep.nesting import loads
from everstep.wakers.message import wake_from_json

from .auth import Unauthorized, Verifier
from .events import event_of, is_cloud_event
from .logs import run, trace, trace_of
from .serving import LoopThread, wsgi
from .settings import WAKE_PATH, Settings
from .waker import CloudTasksWaker, attempts_of, key_of, wanted_later

if TYPE_CHECKING:
    from flask import Request, Response

    from everstep.http.auth import Auth
    from everstep.registry import App, Workflow

SWEEP_PATH = "/sweep"
EVENTS_PATH = "/events"

_SOON = 10_000
_FIRST_TRIES = 4
_LEVELS = {"halted": logging.ERROR, "failed": logging.WARNING, "put off": logging.WARNING, "lost": logging.WARNING}
_log = logging.getLogger("everstep.gcp")


class Reply(NamedTuple):
    """A status, and what is said about it."""

    status: int
    body: Mapping[str, Any]


class Function:
    """One App as a function. `everstep_gcp.handler` documents the arguments."""

    def __init__(
        self,
        app: App,
        settings: Settings,
        *,
        client: Callable[[], Client],
        verifier: Verifier,
        auth: Auth | str | None,
        workflow: Workflow[..., Any] | None = None,
        http: Mapping[str, Any] | None = None,
    ) -> None:
        self.app = app
        self.settings = settings
        self._make_client = client
        self._verifier = verifier
        self._auth = auth if auth is not None else self._may_call
        self._workflow = workflow
        waits = float(max(1, min(55, settings.timeout - 5)))
        self._http_options = {"secret": settings.secret or None, "max_wait": waits, **(http or {})}
        self._threads = LoopThread()
        self._made_for: Any = None
        self._host: Host
        self._wsgi: Any

    def __call__(self, request: Request) -> Response:
        """Answer a request of functions-framework."""
        from flask import Response

        began = time.monotonic()
        headers = {name.lower(): text for name, text in request.headers.items()}
        environ = request.environ
        if request.method == "POST":
            if request.path in (WAKE_PATH, SWEEP_PATH, EVENTS_PATH) or is_cloud_event(headers):
                reply = self._threads.run(self._answer(request.path, headers, request.get_data, began))
                return Response(json.dumps(reply.body), reply.status, mimetype="application/json")
            if self._workflow is not None and request.path == "/":
                environ = _start_of(self._workflow.name, headers, request.get_data(), environ)
        self._threads.run(self._ready())
        return Response.from_app(self._wsgi, environ)  # type: ignore[return-value]

    async def host(self) -> Host:
        """What runs the App, made by the first request of this process."""
        await self._ready()
        return self._host

    async def _ready(self) -> None:
        if self._made_for is not self._threads.loop:
            name = os.environ.get("K_REVISION", "gcp").replace("/", "-")
            self._host = Host(
                self.app,
                self._make_client(),
                pid=f"{name}-{os.getpid()}-{os.urandom(4).hex()}",
                lease=self.settings.timeout * 1000 + 1000,
                steps_per_invocation=self.settings.steps_per_invocation,
                tell=_tell,
                peers={
                    name: CloudTasksWaker.of(self.settings.of_peer(url)) for name, url in self.settings.peers.items()
                },
            )
            self._wsgi = wsgi(self._host.asgi(auth=self._auth, **self._http_options), self._threads.loop)
            self._made_for = self._threads.loop

    async def _may_call(self, request: Any) -> bool:
        """Who may use the HTTP API: whoever has the token, or is one of the callers."""
        given = request.headers.get("authorization", "")
        wanted = self.settings.token
        if wanted and hmac.compare_digest(given.encode(errors="replace"), f"Bearer {wanted}".encode()):
            return True
        try:
            await self._verifier.check(given)
        except Unauthorized:
            return False
        return True

    async def _answer(self, path: str, headers: Mapping[str, str], body: Callable[[], bytes], began: float) -> Reply:
        trace.set(trace_of(headers))
        try:
            await self._verifier.check(headers.get("authorization", ""))
            if path == WAKE_PATH:
                return await self._wake(headers, body(), began)
            host = await self.host()
            if path == SWEEP_PATH:
                return Reply(200, (await host.sweep()).to_dict())
            return Reply(200, {"started": await host.dispatch(event_of(headers, body()))})
        except Unauthorized as error:
            _log.warning("a call to %s was refused: %s", path, error)
            return _problem(401, "unauthorized", str(error))
        except (InvalidArgument, EventRefused) as error:
            _log.error("a call to %s cannot be understood: %s", path, error)
            return _problem(400, "bad request", str(error))
        except PlatformError as error:
            _log.warning("a call to %s must come again: %s: %s", path, type(error).__name__, error)
            return _problem(500, "try again", str(error))

    async def _wake(self, headers: Mapping[str, str], body: bytes, began: float) -> Reply:
        wake = wake_from_json(body)
        run.set(wake.id)
        host = await self.host()
        client = host.client
        waker = client.waker
        attempt, key = attempts_of(headers), key_of(headers)
        now = client.clock.now()
        later = wanted_later(headers, now)
        if later is None:
            ends = began + self.settings.timeout
            answer = await host.deliver(
                wake,
                held=True,
                key=key,
                attempt=attempt,
                remaining=lambda: round((ends - time.monotonic()) * 1000),
            )
            if isinstance(answer, Done):
                return Reply(200, {"done": True})
            now = client.clock.now()
            if answer.at <= now + _SOON and attempt <= _FIRST_TRIES:
                return _problem(409, "too early", "this task is to come again")
            later = answer.at
        if isinstance(waker, CloudTasksWaker):
            await waker.arm(wake, later, attempt=attempt, key=key)
        else:
            await waker.arm(wake, later)
        return Reply(200, {"later": later})

    def cold(self) -> None:
        """Forget what this process keeps warm; for tests."""
        if self._made_for is not None:
            self._threads.loop.call_soon_threadsafe(self._host.cold)

    def close(self) -> None:
        """End what this process has running; for tests."""

        async def end() -> None:
            if self._made_for is not None:
                await self._host.client.close()

        self._threads.run(end())
        self._threads.stop()


def _start_of(name: str, headers: Mapping[str, str], body: bytes, environ: Mapping[str, Any]) -> dict[str, Any]:
    """A request to a function that is one workflow, as the API's request to start it: the body is the event, and
    `Idempotency-Key` its identity. What is no JSON is left as it is, for the API to refuse."""
    path = f"/workflows/{quote(name, safe='')}"
    try:
        start: dict[str, Any] = {"args": [loads(body) if body else None]}
        if key := headers.get("idempotency-key", ""):
            start["id"] = run_id(name, Event(key, "direct"))
        body = json.dumps(start).encode()
    except ValueError:
        pass
    changed = {"PATH_INFO": path, "RAW_URI": path, "CONTENT_LENGTH": str(len(body)), "wsgi.input": BytesIO(body)}
    return {**environ, **changed, "CONTENT_TYPE": "application/json"}


def _problem(status: int, title: str, detail: str) -> Reply:
    return Reply(status, {"title": title, "detail": detail, "status": status})


def _tell(kind: str, id: str, /, **detail: Any) -> None:
    level = _LEVELS.get(kind, logging.INFO)
    if _log.isEnabledFor(level):
        _log.log(level, "%s %s", kind, id, extra={"everstep_id": id, "everstep": {"event": kind, **detail}})
