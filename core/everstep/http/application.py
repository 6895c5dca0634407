"""The routes. Each one checks its input field by field, asks the client, and answers JSON or a problem document.

Nothing is decided here: a start is durable before the answer because the client's start is, and a settlement is
idempotent because the client's is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from everstep.clock import Clock, SystemClock
from everstep.edge import new_id
from everstep.errors import InvalidArgument, NotFound
from everstep.promise import Record, TaskState, from_row, project
from everstep.tokens import Secret, check_secret

from . import auth as gate
from .access import Principal, admit, caller
from .approve import Approvals
from .body import Fields, read_object, seconds_of
from .brief import brief, brief_tree
from .envelope import Envelope, refusal
from .feed import Feed, Topic
from .messages import Messenger
from .openapi import describe
from .page import page as live_page
from .paths import segment, segments
from .problems import Problem, bad, problem_of
from .query import Query
from .strict import dumps
from .waits import Waits

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from everstep.client import Client
    from everstep.registry import App, Workflow
    from everstep.views import PromiseView

    from .debug import Debug
    from .limits import Limiter, Rate

HEARTBEAT = 15.0

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
        self._url = client if isinstance(client, str) else None
        self._opened: Client | None = None if isinstance(client, str) else client
        self._app = app
        self._auth = auth
        self._page = page
        self._max_body = max_body
        self._max_wait = max_wait
        self._hosts = None if hosts is None else frozenset(hosts)
        self._clock = clock if clock is not None else SystemClock()
        self._approvals = Approvals(secret, self._clock, max_body)
        self._stopping = asyncio.Event()
        self._messages = messages if messages is not None else _within_this_process(self._clock)
        self._origins = frozenset(origins)
        self._limiter = _limiter(rate, self._clock) if rate is not None else None
        self._envelope = Envelope(
            lambda: self.client, self._pass, max_body, _debug(lambda: self.client) if debug else None, self.kick
        )
        self._waits = Waits(self._worth_a_look)
        self._outer: ASGIApp = _with_cors(self._respond, origins) if origins else self._respond
        self.feed = Feed(self._fetch)
        if self._opened is not None:
            self._deliver_for(self._opened)

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
        self.feed.kick()
        self._waits.kick()

    def _deliver_for(self, client: Client) -> None:
        standing = client.service.deliver
        if standing is None:
            client.service.deliver = self._messages
        elif isinstance(standing, Messenger):
            self._messages = standing

    def stop(self) -> None:
        """Let every connection that is held open end, so that a server can go down."""
        self._stopping.set()
        self.feed.stop()
        if self._messages.hub is not None:
            self._messages.hub.stop()

    async def close(self) -> None:
        """Give up messages under way, and close the client if it was opened here."""
        self.stop()
        await self._messages.close()
        if self._url is not None and self._opened is not None:
            opened, self._opened = self._opened, None
            await opened.close()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    @property
    def client(self) -> Client:
        if self._opened is None:
            from everstep.client import Client

            assert self._url is not None
            self._opened = Client.open(self._url, app=self._app)
            self._deliver_for(self._opened)
        return self._opened

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
            return await handler(request)
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
                    {"GET": self._live, "POST": self._protocol} if self._page else {"POST": self._protocol},
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
                return None, False, {"GET": self._events}
            case ["workflows"]:
                return None, False, {"GET": self._workflows}
            case ["workflows", name] if name:
                return "args", False, {"POST": lambda request: self._start(name, request)}
            case ["promises"]:
                return None, False, {"GET": self._search}
            case ["promises", id] if id:
                return "id", False, {"GET": lambda request: self._get(id, request)}
            case ["promises", id, "tree"]:
                return "id", False, {"GET": lambda request: self._tree(id, request)}
            case ["promises", id, "resolve" | "reject" | "cancel" | "halt" | "continue" as verb]:
                return "id", False, {"POST": lambda request: self._settle(id, verb, request)}
            case ["schedules"]:
                return "cron", False, {"GET": self._schedules, "POST": self._schedule}
            case ["schedules", id] if id:
                return "id", False, {"DELETE": lambda request: self._unschedule(id)}
        hint = "; percent-encode the slashes of an id as %2F" if len(parts) > 2 else ""
        raise Problem(404, f"there is nothing at /{'/'.join(parts)}{hint}")

    async def _live(self, request: Request) -> Response:
        return live_page()

    async def _poll(self, group: str, id: str, request: Request) -> Response:
        """Messages for a worker, for as long as it stays (protocol: the poll transport)."""
        from .poll import letters

        hub = self._messages.hub
        if hub is None:
            raise Problem(501, "this platform holds no connection open; let messages be pushed to an http address")
        principal = caller(request)
        principal.check_group(group)
        if hub.full:
            raise Problem(503, "as many workers are connected as may be", headers={"retry-after": "5"})
        return _events(letters(self.client, self._messages, hub, group, id, principal))

    async def _openapi(self, request: Request) -> Response:
        return _json(describe(request.scope.get("root_path", "")))

    async def _approve(self, token: str, request: Request) -> Response:
        response = await self._approvals.settle(self.client, token, request)
        self.kick()
        return response

    async def _workflows(self, request: Request) -> Response:
        known = self._app.workflows if self._app is not None else []
        shown = [{"name": one.name, "version": one.version, "parameters": _parameters(one)} for one in known]
        return _json({"workflows": shown})

    async def _start(self, name: str, request: Request) -> Response:
        known = ("id", "args", "kwargs", "timeout", "tags", "on_conflict")
        body = await read_object(request, self._max_body, known=known)
        on_conflict = body.optional_text("on_conflict") or "raise"
        if on_conflict not in ("raise", "attach"):
            raise bad("on_conflict", 'on_conflict must be "raise" or "attach"')
        principal = caller(request)
        id = body.optional_text("id")
        if id is not None:
            principal.check(id)
        elif principal.within:
            id = principal.within + new_id(name)
        options: dict[str, Any] = {
            "id": id,
            "timeout": body.seconds("timeout"),
            "tags": body.tags("tags"),
            "on_conflict": on_conflict,
        }
        args, kwargs = body.items("args"), body.mapping("kwargs")
        try:
            handle = await self.client.options(**options).start(self._workflow(name), *args, **kwargs)
        except TypeError as error:
            raise bad("args", str(error)) from error
        self.kick()
        address = f"{quote(request.scope.get('root_path', '').rstrip('/'))}/promises/{segment(handle.id)}"
        body_out = {"id": handle.id, "promise": address, "wait": f"{address}?wait=30", "tree": f"{address}/tree"}
        return _json(body_out, 202, {"location": address})

    def _workflow(self, name: str) -> Workflow[..., Any] | str:
        """What to start: ours, if we know any, else whatever the client's store has a worker for."""
        return name if self._app is None else self._app.find(name).workflow or name

    async def _search(self, request: Request) -> Response:
        query = Query(request, ("state", "tag", "prefix", "limit", "cursor", "roots", "brief"))
        views, cursor = await self.client.search(
            state=query.state(),
            tags=query.tags(),
            prefix=_within(caller(request), query.text("prefix") or ""),
            roots=query.flag("roots", True),
            limit=query.limit(100),
            cursor=query.text("cursor"),
        )
        shape = brief if query.flag("brief", False) else _full
        body: dict[str, Any] = {"promises": [shape(view) for view in views], "cursor": cursor}
        if shape is brief:
            body["now"] = self._clock.now()
        return _json(body)

    async def _get(self, id: str, request: Request) -> Response:
        query = Query(request, ("wait",))
        wait = query.text("wait")
        if wait is None:
            return _json((await self.client.get(id)).to_dict())
        limit = min(seconds_of(wait, "wait"), self._max_wait)
        return _json((await self._wait(id, limit, request)).to_dict())

    async def _wait(self, id: str, limit: float, request: Request) -> PromiseView:
        """Hold the request until the promise settles, the time is over, the caller leaves or the server goes down."""
        view = await self.client.get(id)
        if not view.pending or view.halted or limit <= 0:
            return view
        waiting = asyncio.ensure_future(self._waits.until(id, limit))
        others = [asyncio.ensure_future(_left(request)), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait([waiting, *others], return_when=asyncio.FIRST_COMPLETED)
            if others[0].done() and not waiting.done():
                raise ClientDisconnect
            return await self.client.get(id)
        finally:
            for one in (waiting, *others):
                one.cancel()
            await asyncio.gather(waiting, *others, return_exceptions=True)

    async def _worth_a_look(self, ids: Collection[str]) -> list[str]:
        """Those of the promises somebody waits for that are settled, halted or gone."""
        client = self.client
        rows = await client.store.load(list(ids))
        now = client.clock.now()
        shown = {id: project(from_row(row), now) for id, row in rows.items()}
        found = [id for id, record in shown.items() if not record.pending or _halted(record)]
        for id in ids:
            # A timer that lives in its run has no row (rule B1).
            if id not in rows:
                with contextlib.suppress(NotFound):
                    if (await client.get(id)).pending:
                        continue
                found.append(id)
        return found

    async def _tree(self, id: str, request: Request) -> Response:
        query = Query(request, ("brief",))
        tree = await self.client.tree(id)
        if query.flag("brief", False):
            return _json({"now": self._clock.now(), "run": brief_tree(tree)})
        return _json(tree.to_dict())

    async def _settle(self, id: str, verb: str, request: Request) -> Response:
        client = self.client
        match verb:
            case "resolve":
                body = await read_object(request, self._max_body, known=("value",))
                view = await client.resolve(id, body.any("value"))
            case "reject":
                body = await read_object(request, self._max_body, known=("error",))
                view = await client.reject(id, _error(body))
            case "cancel":
                await read_object(request, self._max_body, known=())
                view = await client.cancel(id)
            case "halt":
                body = await read_object(request, self._max_body, known=("reason",))
                await client.halt(id, body.optional_text("reason") or "")
                view = await client.get(id)
            case _:
                await read_object(request, self._max_body, known=())
                await client.continue_(id)
                view = await client.get(id)
        self.kick()
        return _json(view.to_dict())

    async def _schedules(self, request: Request) -> Response:
        may_see = caller(request).may_see
        found = [_plain(one) for one in await self.client.schedules()]
        return _json({"schedules": [one for one in found if may_see(one["id"])]})

    async def _schedule(self, request: Request) -> Response:
        known = ("id", "cron", "workflow", "args", "kwargs", "timezone", "timeout", "tags")
        body = await read_object(request, self._max_body, known=known)
        id, cron, name = body.text("id"), body.text("cron"), body.text("workflow")
        caller(request).check(id)
        try:
            made = await self.client.schedule(
                id,
                cron,
                self._workflow(name),
                *body.items("args"),
                timezone=body.optional_text("timezone"),
                timeout=body.seconds("timeout"),
                tags=body.tags("tags"),
                **body.mapping("kwargs"),
            )
        except TypeError as error:
            raise bad("args", str(error)) from error
        return _json(_plain(made), 201)

    async def _unschedule(self, id: str) -> Response:
        await self.client.unschedule(id)
        return Response(status_code=204)

    async def _events(self, request: Request) -> Response:
        query = Query(request, ("run", "state", "prefix", "limit"))
        prefix = _within(caller(request), query.text("prefix") or "")
        topics = [Topic("runs", prefix, query.state(), query.limit(100))]
        if run := query.text("run"):
            caller(request).check(run)
            topics.append(Topic("run", run))
        return _events(self._stream(topics))

    async def _stream(self, topics: list[Topic]) -> AsyncIterator[bytes]:
        yield b"retry: 2000\n\n"
        async with self.feed.subscribe(*topics) as subscription:
            while not self.feed.stopped:
                news = await subscription.next(HEARTBEAT)
                if not news:
                    yield b": still here\n\n"
                for topic, text in news.items():
                    data = f'{{"now":{self._clock.now()},{text}}}'
                    yield f"event: {topic.name}\ndata: {data}\n\n".encode()

    async def _fetch(self, topic: Topic) -> str:
        """A topic's members of a JSON object. JSON has no raw line break, so it is one line of an event."""
        try:
            if topic.name == "run":
                run = brief_tree(await self.client.tree(topic.prefix))
                return _members({"id": topic.prefix, "run": run})
            views, cursor = await self.client.search(state=topic.state, prefix=topic.prefix, limit=topic.limit)
            return _members({"promises": [brief(view) for view in views], "cursor": cursor})
        except NotFound:
            return _members({"id": topic.prefix, "run": None})
        except Exception as error:
            return _members({"trouble": problem_of(error).detail})


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


def _events(stream: AsyncIterator[bytes]) -> Response:
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream, headers=headers, media_type="text/event-stream")


def _within(principal: Principal, prefix: str) -> str:
    """A prefix to search for, narrowed to what the caller may see. Raises Problem 403 where nothing is left."""
    if principal.within.startswith(prefix):
        return principal.within
    principal.check(prefix)
    return prefix


def _halted(record: Record) -> bool:
    return record.task is not None and record.task.state is TaskState.HALTED


def _members(values: dict[str, Any]) -> str:
    return dumps(values).decode()[1:-1]


async def _left(request: Request) -> None:
    """Return when the caller closes the connection."""
    with contextlib.suppress(RuntimeError):
        while (await request.receive())["type"] != "http.disconnect":
            pass


def _error(body: Fields) -> str | dict[str, Any]:
    error = body.any("error")
    if error is None:
        return "rejected from outside"
    if isinstance(error, str):
        return error
    if not isinstance(error, dict):
        raise bad("error", 'error must be a string or an object with "type" and "message"')
    for name in ("type", "message"):
        if not isinstance(error.get(name, ""), str):
            raise bad(f"error.{name}", f"error.{name} must be a string")
    return error


def _parameters(workflow: Workflow[..., Any]) -> list[str]:
    """What it takes, for a person: `cents`, `pause=1.0`."""
    found = []
    for one in workflow.app.info(workflow).signature.parameters:
        stars = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
        found.append(f"{stars}{one.name}" + ("" if one.default is one.empty else f"={one.default!r:.40}"))
    return found


def _full(view: PromiseView) -> dict[str, Any]:
    return view.to_dict()


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, "to_dict") else value


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(dumps(value), status, {"cache-control": "no-store", **(headers or {})}, "application/json")
