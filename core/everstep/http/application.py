"""The ASGI app: who may come in, which route an address is, and what becomes of an error.

The routes check their input field by field, ask the client, and answer JSON or a problem document. Nothing is decided
there: a start is durable before the answer because the client's start is, and a settlement is idempotent because the
client's is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from everstep.clock import Clock, SystemClock
from everstep.errors import InvalidArgument
from everstep.tokens import Secret, check_secret

from . import auth as gate
from .access import Principal, admit, caller
from .answers import answer, event_stream
from .approve import Approvals
from .envelope import Envelope, refusal
from .live import Live
from .messages import Messenger
from .openapi import describe
from .page import page as live_page
from .paths import segments
from .problems import Problem, problem_of
from .promises import Promises
from .schedules import Schedules
from .site import Site
from .workflows import Workflows

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from everstep.client import Client
    from everstep.registry import App

    from .debug import Debug
    from .limits import Limiter, Rate

Handler = Callable[[Request], Awaitable[Response]]


class Application:
    """An ASGI application; `everstep.http.asgi` documents its arguments."""

    def __init__(
        self,
        client: Client | str,
        app: App | None = None,
        *,
        auth: gate.Auth | str | None = None,
        secret: Secret | Sequence[Secret] | None = None,
        page: bool = True,
        max_body: int = 1_000_000,
        max_wait: float = 55.0,
        hosts: Sequence[str] | None = None,
        clock: Clock | None = None,
        messages: Messenger | None = None,
        origins: Sequence[str] = (),
        rate: Rate | None = None,
        debug: bool = False,
    ) -> None:
        if auth == "":
            raise InvalidArgument("auth is an empty token, which would let everybody pass; leave it out to mean that")
        if secret is not None:
            for one in [secret] if isinstance(secret, (str, bytes)) else secret:
                check_secret(one)
        clock = clock if clock is not None else SystemClock()
        messages = messages if messages is not None else _within_this_process(clock)
        self._site = Site(client, app, clock, messages, max_body, max_wait)
        self._auth = auth
        self._page = page
        self._hosts = None if hosts is None else frozenset(hosts)
        self._origins = frozenset(origins)
        self._limiter = _limiter(rate, clock) if rate is not None else None
        self._envelope = Envelope(
            lambda: self.client, self._pass, max_body, _debug(lambda: self.client) if debug else None, self.kick
        )
        self._approvals = Approvals(secret, clock, max_body)
        self._workflows = Workflows(self._site)
        self._promises = Promises(self._site)
        self._schedules = Schedules(self._site)
        self._live = Live(self._site)
        self.feed = self._live.feed
        self._outer: ASGIApp = _with_cors(self._respond, origins) if origins else self._respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._outer(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except Exception as error:
            response = problem_of(error).response()
        await response(scope, receive, send)

    def kick(self) -> None:
        """Something was changed here: who waits or watches looks at once."""
        self._site.kick()

    def stop(self) -> None:
        """Let every connection that is held open end, so that a server can go down."""
        self._site.stopping.set()
        self.feed.stop()
        if self._site.messages.hub is not None:
            self._site.messages.hub.stop()

    async def close(self) -> None:
        """Give up messages under way, and close the client if it was opened here."""
        self.stop()
        await self._site.close()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    @property
    def client(self) -> Client:
        return self._site.client

    async def _answer(self, request: Request) -> Response:
        parts = segments(request.scope)
        if parts == [""] and request.method == "POST":
            return await self._protocol(request)
        gate.check_host(self._hosts, request)
        if parts is None:
            return RedirectResponse(request.scope["root_path"].rstrip("/") + "/", 307)
        field, public, handlers = self._route(parts)
        handler = handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = [*handlers, "HEAD"] if "GET" in handlers else [*handlers]
            detail = f"{request.method} is not for this address; {', '.join(allowed)}"
            raise Problem(405, detail, headers={"allow": ", ".join(allowed)})
        if not public:
            principal = await self._pass(request, None)
            if request.method not in ("GET", "HEAD"):
                principal.check_writes()
            if parts[0] in ("promises", "schedules") and len(parts) > 1:
                principal.check(parts[1])
        try:
            response = await handler(request)
            if request.method == "HEAD" and isinstance(response, StreamingResponse):
                return Response(headers=dict(response.headers))  # nobody would read what a stream takes for its caller
            return response
        except (Problem, ClientDisconnect):
            raise
        except Exception as error:
            raise problem_of(error, field) from error

    async def _protocol(self, request: Request) -> Response:
        try:
            gate.check_host(self._hosts, request)
        except Problem as problem:
            return refusal(None, problem)
        return await self._envelope.answer(request)

    async def _pass(self, request: Request, token: str | None) -> Principal:
        """Who sends a request that may pass. Raises Problem 401, 403, 429."""
        if self._limiter is not None:
            # Before the token is looked at: guessing one is limited as well.
            self._limiter.take(f"from {request.client.host if request.client else ''}")
        principal = await gate.check(self._auth, request, self._origins, token)
        if self._limiter is not None and principal.name:
            self._limiter.take(f"as {principal.name}")
        admit(request, principal)
        return principal

    def _route(self, parts: list[str]) -> tuple[str | None, bool, Mapping[str, Handler]]:
        """The field an address carries, whether it is open to all, and its methods. Raises Problem 404."""
        match parts:
            case [""]:
                return (
                    None,
                    True,
                    {"GET": self._show, "POST": self._protocol} if self._page else {"POST": self._protocol},
                )
            case ["openapi.json"]:
                return None, True, {"GET": self._openapi}
            case ["approve", token]:
                return (
                    None,
                    True,
                    {
                        "GET": lambda request: self._approvals.show(self.client, token),
                        "POST": lambda request: self._approve(token, request),
                    },
                )
            case ["poll", group, id] if group and id:
                return None, False, {"GET": lambda request: self._poll(group, id, request)}
            case ["events"]:
                return None, False, {"GET": self._live.events}
            case ["workflows"]:
                return None, False, {"GET": self._workflows.known}
            case ["workflows", name] if name:
                return "args", False, {"POST": lambda request: self._workflows.start(name, request)}
            case ["promises"]:
                return None, False, {"GET": self._promises.search}
            case ["promises", id] if id:
                return "id", False, {"GET": lambda request: self._promises.get(id, request)}
            case ["promises", id, "tree"]:
                return "id", False, {"GET": lambda request: self._promises.tree(id, request)}
            case ["promises", id, "resolve" | "reject" | "cancel" | "halt" | "continue" as verb]:
                return "id", False, {"POST": lambda request: self._promises.settle(id, verb, request)}
            case ["schedules"]:
                return "cron", False, {"GET": self._schedules.known, "POST": self._schedules.create}
            case ["schedules", id] if id:
                return "id", False, {"DELETE": lambda request: self._schedules.delete(id)}
        hint = "; percent-encode the slashes of an id as %2F" if len(parts) > 2 else ""
        raise Problem(404, f"there is nothing at /{'/'.join(parts)}{hint}")

    async def _show(self, request: Request) -> Response:
        return live_page()

    async def _poll(self, group: str, id: str, request: Request) -> Response:
        """Messages for a worker, for as long as it stays (protocol: the poll transport)."""
        from .poll import letters

        hub = self._site.messages.hub
        if hub is None:
            raise Problem(501, "this platform holds no connection open; let messages be pushed to an http address")
        principal = caller(request)
        principal.check_group(group)
        if self._auth is None and gate.from_elsewhere(request, self._origins):
            raise Problem(403, "a page of another site may take no messages here")
        if hub.full:
            raise Problem(503, "as many workers are connected as may be", headers={"retry-after": "5"})
        return event_stream(letters(self.client, self._site.messages, hub, group, id, principal))

    async def _openapi(self, request: Request) -> Response:
        return answer(describe(request.scope.get("root_path", "")))

    async def _approve(self, token: str, request: Request) -> Response:
        response = await self._approvals.settle(self.client, token, request)
        self.kick()
        return response


def _within_this_process(clock: Clock) -> Messenger:
    from .hub import Hub

    return Messenger(Hub(), background=True, clock=clock)


def _limiter(rate: Rate, clock: Clock) -> Limiter:
    from .limits import Limiter

    return Limiter(rate, clock)


def _debug(client: Callable[[], Client]) -> Debug:
    from .debug import Debug

    return Debug(client)


def _with_cors(inner: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(
        inner,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["authorization", "content-type", "last-event-id", "cache-control"],
        expose_headers=["location", "retry-after", "www-authenticate"],
        max_age=600,
    )
