"""The routes. Each one checks its input field by field, asks the client, and answers JSON or a problem document.

Nothing is decided here: a start is durable before the answer because the client's start is, and a settlement is
idempotent because the client's is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from everstep.clock import Clock, SystemClock
from everstep.errors import InvalidArgument, NotFound
from everstep.tokens import Secret, check_secret

from . import auth as gate
from .approve import Approvals
from .body import Fields, read_object, seconds_of, whole_of
from .brief import brief, brief_tree
from .feed import Feed, Topic
from .openapi import describe
from .page import page as live_page
from .paths import segment, segments
from .problems import Problem, bad, problem_of
from .strict import dumps

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from everstep.client import Client
    from everstep.registry import App, Workflow
    from everstep.views import PromiseView

STATES = ("pending", "resolved", "rejected", "rejected_canceled", "rejected_timedout", "halted")
MAX_PAGE = 1000
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
        self.feed = Feed(self._fetch)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            request = Request(scope, receive)
            try:
                response = await self._answer(request)
            except ClientDisconnect:
                return
            except Exception as error:
                response = problem_of(error).response()
            await response(scope, receive, send)

    def stop(self) -> None:
        """Let every connection that is held open end, so that a server can go down."""
        self._stopping.set()
        self.feed.stop()

    async def close(self) -> None:
        """Close the client, if it was opened here."""
        self.stop()
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
        return self._opened

    async def _answer(self, request: Request) -> Response:
        gate.check_host(self._hosts, request)
        parts = segments(request.scope)
        if parts is None:
            return RedirectResponse(request.scope["root_path"].rstrip("/") + "/", 307)
        field, public, handlers = self._route(parts)
        handler = handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = [*handlers, "HEAD"] if "GET" in handlers else [*handlers]
            detail = f"{request.method} is not for this address; {', '.join(allowed)}"
            raise Problem(405, detail, headers={"allow": ", ".join(allowed)})
        if not public:
            await gate.check(self._auth, request)
        try:
            return await handler(request)
        except (Problem, ClientDisconnect):
            raise
        except Exception as error:
            raise problem_of(error, field) from error

    def _route(self, parts: list[str]) -> tuple[str | None, bool, Mapping[str, Handler]]:
        """The field an address carries, whether it is open to all, and its methods. Raises Problem 404."""
        match parts:
            case [""]:
                return None, True, {"GET": self._live, "POST": self._later} if self._page else {"POST": self._later}
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
            case ["poll", *_]:
                return None, False, {"GET": self._later}
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

    async def _later(self, request: Request) -> Response:
        raise Problem(501, "the protocol gateway is not part of this release")

    async def _openapi(self, request: Request) -> Response:
        return _json(describe(request.scope.get("root_path", "")))

    async def _approve(self, token: str, request: Request) -> Response:
        response = await self._approvals.settle(self.client, token, request)
        self.feed.kick()
        return response

    async def _workflows(self, request: Request) -> Response:
        known = self._app.workflows if self._app is not None else []
        return _json({"workflows": [{"name": one.name, "version": one.version} for one in known]})

    async def _start(self, name: str, request: Request) -> Response:
        known = ("id", "args", "kwargs", "timeout", "tags", "on_conflict")
        body = await read_object(request, self._max_body, known=known)
        on_conflict = body.optional_text("on_conflict") or "raise"
        if on_conflict not in ("raise", "attach"):
            raise bad("on_conflict", 'on_conflict must be "raise" or "attach"')
        options: dict[str, Any] = {
            "id": body.optional_text("id"),
            "timeout": body.seconds("timeout"),
            "tags": body.tags("tags"),
            "on_conflict": on_conflict,
        }
        args, kwargs = body.items("args"), body.mapping("kwargs")
        try:
            handle = await self.client.options(**options).start(self._workflow(name), *args, **kwargs)
        except TypeError as error:
            raise bad("args", str(error)) from error
        self.feed.kick()
        address = f"{quote(request.scope.get('root_path', '').rstrip('/'))}/promises/{segment(handle.id)}"
        body_out = {"id": handle.id, "promise": address, "wait": f"{address}?wait=30", "tree": f"{address}/tree"}
        return _json(body_out, 202, {"location": address})

    def _workflow(self, name: str) -> Workflow[..., Any] | str:
        """What to start: ours, if we know any, else whatever the client's store has a worker for."""
        return name if self._app is None else self._app.find(name).workflow or name

    async def _search(self, request: Request) -> Response:
        query = _Query(request, ("state", "tag", "prefix", "limit", "cursor", "roots", "brief"))
        views, cursor = await self.client.search(
            state=query.state(),
            tags=query.tags(),
            prefix=query.text("prefix") or "",
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
        query = _Query(request, ("wait",))
        wait = query.text("wait")
        if wait is None:
            return _json((await self.client.get(id)).to_dict())
        limit = min(seconds_of(wait, "wait"), self._max_wait)
        return _json((await self._wait(id, limit, request)).to_dict())

    async def _wait(self, id: str, limit: float, request: Request) -> PromiseView:
        """Hold the request until the promise settles, the time is over, the caller leaves or the server goes down."""
        waiting = asyncio.ensure_future(self.client.wait(id, limit))
        others = [asyncio.ensure_future(_left(request)), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait([waiting, *others], return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            if others[0].done():
                raise ClientDisconnect
            return await self.client.get(id)
        finally:
            for one in (waiting, *others):
                one.cancel()
            await asyncio.gather(waiting, *others, return_exceptions=True)

    async def _tree(self, id: str, request: Request) -> Response:
        query = _Query(request, ("brief",))
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
        self.feed.kick()
        return _json(view.to_dict())

    async def _schedules(self, request: Request) -> Response:
        return _json({"schedules": [_plain(one) for one in await self.client.schedules()]})

    async def _schedule(self, request: Request) -> Response:
        known = ("id", "cron", "workflow", "args", "kwargs", "timezone", "timeout", "tags")
        body = await read_object(request, self._max_body, known=known)
        id, cron, name = body.text("id"), body.text("cron"), body.text("workflow")
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
        query = _Query(request, ("run", "state", "prefix", "limit"))
        topics = [Topic("runs", query.text("prefix") or "", query.state(), query.limit(100))]
        if run := query.text("run"):
            topics.append(Topic("run", run))
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._stream(topics), headers=headers, media_type="text/event-stream")

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


def _members(values: dict[str, Any]) -> str:
    return dumps(values).decode()[1:-1]


class _Query:
    """Query parameters by name; one that nobody reads is refused, so that a misspelt filter filters nothing."""

    def __init__(self, request: Request, known: Sequence[str]) -> None:
        self._params = request.query_params
        for name in self._params:
            if name not in known:
                raise bad(name, f"there is no parameter {name!r} here; known: {', '.join(known)}")

    def text(self, name: str) -> str | None:
        return self._params.get(name)

    def state(self) -> str | None:
        state = self._params.get("state") or None
        if state is not None and state not in STATES:
            raise bad("state", f"state must be one of {', '.join(STATES)}, not {state!r}")
        return state

    def tags(self) -> dict[str, str] | None:
        """`tag=team=ops` or `tag=team:ops`, repeated for several."""
        tags = {}
        for text in self._params.getlist("tag"):
            name, sign, value = text.partition("=" if "=" in text else ":")
            if not sign or not name:
                raise bad("tag", f"tag must be name=value, not {text!r}")
            tags[name] = value
        return tags or None

    def limit(self, default: int) -> int:
        text = self._params.get("limit")
        return default if text is None else whole_of(text, "limit", 1, MAX_PAGE)

    def flag(self, name: str, default: bool) -> bool:
        text = self._params.get(name)
        if text is None:
            return default
        if text.lower() not in ("1", "0", "true", "false"):
            raise bad(name, f"{name} must be true or false, not {text!r}")
        return text.lower() in ("1", "true")


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


def _full(view: PromiseView) -> dict[str, Any]:
    return view.to_dict()


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, "to_dict") else value


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(dumps(value), status, {"cache-control": "no-store", **(headers or {})}, "application/json")
