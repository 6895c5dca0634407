"""What Lambda calls: wake-ups from our queue, HTTP, events that start workflows, direct invocations, the sweep.

Nothing is acknowledged before its obligation is durable elsewhere. A wake-up that must come again later is sent anew
with its delay, and only trouble makes the queue deliver the same message again: so its count of receives counts deaths,
and what exhausts it is poison, which the dead-letter consumer halts in sight (rule W9).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from everstep.client import Client
from everstep.driver import Retry
from everstep.errors import InvalidArgument, PlatformError
from everstep.events import Event, EventRefused
from everstep.hosting import Host
from everstep.peers import read_peers
from everstep.wakers.message import wake_from_json

from .events import Batch, Item, UnknownEvent, direct, is_http, read
from .observe import observer

if TYPE_CHECKING:
    from everstep.http.auth import Auth
    from everstep.ports import Waker
    from everstep.registry import App
    from everstep.tokens import Secret

    from .observe import Observer
    from .waker import SqsWaker
    from .web import Web

log = logging.getLogger("everstep_aws")

Start = Callable[[Event], Awaitable[list[str]]]


class Function:
    """A Lambda handler. It is called with an event and its context; `handler` documents the arguments.

    The loop, the clients and the bodies of suspended workflows stay for as long as the sandbox does.
    """

    def __init__(
        self,
        app: App,
        *,
        client: Client | None = None,
        auth: Auth | str | None = None,
        secret: Secret | None = None,
        base_path: str = "/",
        observer: Observer | None = None,
        peers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.app = app
        self._peers = peers if peers is not None else read_peers(os.environ.get("EVERSTEP_PEERS", ""))
        self._client = client if client is not None else _opened(app, os.environ)
        self._start: Start | None = None
        self._auth = auth
        self._secret = secret
        self._base_path = base_path
        self._observer = observer
        self._options = options
        self._host: Host | None = None
        self._web: Web | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def client(self) -> Client:
        """The client of the store this function works on. Raises InvalidArgument where none is named."""
        if self._client is None:
            raise InvalidArgument("no store is named: set EVERSTEP_TABLE (or EVERSTEP_STORE to a store's URL)")
        return self._client

    def start_with(self, start: Start) -> None:
        """Let `start` decide what an event starts, in place of the App's triggers."""
        self._start = start

    def __call__(self, event: Any, context: Any) -> Any:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(self.answer(event, context))

    async def answer(self, event: Any, context: Any) -> Any:
        """Answer one invocation."""
        host = self.host(context)
        if self._observer is None:
            return await self._answer(host, event, context)
        with self._observer.invocation(context):
            return await self._answer(host, event, context)

    async def _answer(self, host: Host, event: Any, context: Any) -> Any:
        if is_http(event):
            return await self._http(host, event, context)
        batch = read(event)
        if batch is not None:
            return await self._batch(host, batch, context)
        match event:
            case {"everstep": "sweep"}:
                report = await host.sweep()
                return {"fired": report.fired, "purged": report.purged}
            case {"workflow": str(name), **asked} if set(asked) <= {"id", "args", "kwargs", "timeout", "tags"}:
                return await self._invoked(host, name, asked, context)
        started = await self._dispatch(host, direct(event, context.aws_request_id, context.function_name))
        if not started:
            raise UnknownEvent(
                f"nothing is known of an event with {_shape(event)}, and no workflow wants it; a direct invocation is "
                '{"workflow": name, "args": [...], "id": ...} or what an @app.on("direct") takes'
            )
        return {"ids": started}

    def host(self, context: Any) -> Host:
        """The host of this sandbox. Its lease is what the first invocation was given, which is what each one is."""
        if self._host is None:
            given = int(context.get_remaining_time_in_millis())
            self._host = Host(
                self.app,
                self.client,
                pid=os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME") or f"{os.getpid()}-{os.urandom(4).hex()}",
                lease=-(-given // 1000) * 1000 + 1000,
                tell=self._observer.tell if self._observer is not None else None,
                tells_steps=self._observer is not None,
                peers=_wakers(self._peers),
                **self._options,
            )
        return self._host

    async def _http(self, host: Host, event: Any, context: Any) -> Any:
        if self._web is None:
            from .auth import Gate
            from .web import Web

            auth = self._auth if self._auth is not None else Gate(os.environ.get("EVERSTEP_TOKEN") or None)
            secret = self._secret or os.environ.get("EVERSTEP_SECRET") or None
            asgi = host.asgi(auth=auth, secret=secret, page=False, max_wait=20.0, clock=host.client.clock)
            self._web = Web(asgi, self._base_path)
        return await self._web(event, context)

    async def _invoked(self, host: Host, name: str, asked: Mapping[Any, Any], context: Any) -> dict[str, Any]:
        options = {key: asked[key] for key in ("timeout", "tags") if key in asked}
        starter = host.client.options(id=asked.get("id", f"{name}-{context.aws_request_id}"), **options)
        handle = await starter.start(name, *asked.get("args", ()), **asked.get("kwargs", {}))
        return {"id": handle.id}

    async def _batch(self, host: Host, batch: Batch, context: Any) -> Any:
        """Every record by itself; records of one group, and of a stream, stop at the first that fails."""
        ordered = batch.kind in ("kinesis", "dynamodb")
        groups: dict[str, list[Item]] = {}
        for at, item in enumerate(batch.items):
            groups.setdefault("" if ordered else item.group or f"\0{at}", []).append(item)
        failed = await asyncio.gather(*[self._group(host, items, context) for items in groups.values()])
        failures = [item for items in failed for item in items]
        if batch.partial:
            return {"batchItemFailures": [{"itemIdentifier": item.failure} for item in failures]}
        if failures:
            raise RuntimeError(f"{len(failures)} of {len(batch.items)} {batch.kind} records failed; see the log")
        return None

    async def _group(self, host: Host, items: list[Item], context: Any) -> list[Item]:
        for at, item in enumerate(items):
            try:
                await self._one(host, item.event, context)
            except (EventRefused, InvalidArgument) as error:
                log.error("refused: %s", error, extra={"event_id": item.event.id})
                return items[at:]
            except PlatformError as error:
                log.warning("comes again: %s", error, extra={"event_id": item.event.id})
                return items[at:]
            except Exception:
                log.exception("failed: %s event %s", item.event.kind, item.event.id)
                return items[at:]
        return []

    async def _one(self, host: Host, event: Event, context: Any) -> None:
        waker: Any = host.client.waker
        if event.kind != "sqs" or event.source != getattr(waker, "queue", "").rpartition("/")[2]:
            if not await self._dispatch(host, event):
                log.warning("no workflow wants the %s event %s of %s", event.kind, event.id, event.source)
            return
        await self._wake(host, waker, event, context)

    async def _wake(self, host: Host, waker: SqsWaker, event: Event, context: Any) -> None:
        wake = wake_from_json(event.data if isinstance(event.data, str) else json.dumps(event.data))
        received, sent = (int(event.attributes.get(name, 1)) for name in ("ApproximateReceiveCount", "attempt"))
        attempt, key = received + sent - 1, key_of(event)
        answer = await host.deliver(
            wake, held=True, key=key, attempt=attempt, remaining=context.get_remaining_time_in_millis
        )
        if isinstance(answer, Retry):
            await waker.again(wake, answer.at, attempt + 1, key, host.driver.lease)

    async def _dispatch(self, host: Host, event: Event) -> list[str]:
        return await (self._start(event) if self._start is not None else host.dispatch(event))


def handler(
    app: App,
    *,
    client: Client | None = None,
    steps_per_invocation: int | None = None,
    margin: int = 2_000,
    cache: int = 64,
    auth: Auth | str | None = None,
    secret: Secret | None = None,
    base_path: str = "/",
    powertools: bool | None = None,
    peers: Mapping[str, str] | None = None,
) -> Function:
    """The Lambda handler of an App: `handler = everstep_aws.handler(app)`.

    It is configured by the environment, as the templates do: EVERSTEP_TABLE (or EVERSTEP_STORE, a store's URL),
    EVERSTEP_QUEUE, EVERSTEP_SCHEDULER_ROLE, EVERSTEP_SCHEDULE_GROUP, EVERSTEP_BUCKET, EVERSTEP_TOKEN, EVERSTEP_SECRET.

    Args:
        client: in place of the one the environment names.
        steps_per_invocation: 1 makes every checkpoint an invocation of its own; None runs until the workflow waits.
        margin: milliseconds to keep for letting go before the function's time is over.
        cache: how many suspended workflows are kept warm.
        auth: who may use the HTTP routes; by default whom AWS has authorised, and who bears EVERSTEP_TOKEN.
        secret: for signed approval links; EVERSTEP_SECRET by default.
        base_path: what API Gateway has in front of its paths.
        peers: the queues of other Apps' functions on the same table, by the App's name; what EVERSTEP_PEERS says by
            default (`billing=https://...,ledger=https://...`).
        powertools: logs, metrics and traces through AWS Powertools; by default where POWERTOOLS_SERVICE_NAME is set.

    Raises:
        InvalidArgument, StoreError: the environment names a store that cannot be opened.
    """
    return Function(
        app,
        client=client,
        auth=auth,
        secret=secret,
        base_path=base_path,
        observer=observer(powertools),
        peers=peers,
        steps_per_invocation=steps_per_invocation,
        margin=margin,
        cache=cache,
    )


def _opened(app: App, environ: Mapping[str, str]) -> Client | None:
    """The client the environment names, prepared while the sandbox starts, where time costs least."""
    table = environ.get("EVERSTEP_TABLE")
    url = environ.get("EVERSTEP_STORE") or (f"dynamodb://{table}" if table else None)
    if not url:
        return None
    client = Client.open(url, app=app)
    for part in (client.store, client.waker):
        prepare: Callable[[], None] | None = getattr(part, "prepare", None)
        if prepare is not None:
            prepare()
    return client


def _wakers(queues: Mapping[str, str]) -> dict[str, Waker]:
    if not queues:
        return {}
    from .waker import SqsWaker

    return {name: SqsWaker(queue) for name, queue in queues.items()}


def key_of(event: Event) -> str:
    """What identifies a wake-up's message, or the one that it was sent in place of."""
    return str(event.attributes.get("key", event.id))


def _shape(event: Any) -> str:
    return f"keys {sorted(event)}" if isinstance(event, Mapping) else type(event).__name__
