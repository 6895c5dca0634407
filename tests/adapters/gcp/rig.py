"""What the suites hold: the handler behind Flask, as functions-framework has it, and the queue on a virtual clock."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import flask

from everstep.client import Client
from everstep.errors import StoreUnavailable
from everstep.ports import Store, Wake
from everstep.registry import App
from everstep.stores.memory import MemoryStore
from everstep.wakers.message import wake_from_json
from everstep_gcp import CloudTasksWaker, Settings, Verifier, handler
from everstep_gcp.connection import Connection
from everstep_gcp.names import id_of
from everstep_gcp.store import FirestoreStore
from everstep_gcp.waker import wanted_later

from .dispatcher import Delivery, Dispatcher
from .tokens import Keys

QUEUE = "projects/demo/locations/europe-west1/queues/wake"
ACCOUNT = "wake@demo.iam.gserviceaccount.com"
URL = "https://fn.example"
START = 1_800_000_000.0


class QueueClock:
    """The dispatcher's clock, in milliseconds; or one that is `behind` it."""

    behind = 0

    def __init__(self, dispatcher: Dispatcher | None = None) -> None:
        self.dispatcher = dispatcher

    def now(self) -> int:
        at = self.dispatcher.now() if self.dispatcher is not None else START
        return round(at * 1000) - self.behind


async def certificates(keys: Keys) -> tuple[dict[str, str], float]:
    return keys.certificates, 3600.0


class WakerRig:
    """The waker alone: what is delivered is noted, and put off where it says so, as the handler does."""

    def __init__(self, keys: Keys) -> None:
        self.store: Store = MemoryStore()
        self.delivered: list[Wake] = []
        self._again: list[tuple[Wake, int]] = []
        self.dispatcher = Dispatcher(keys, send=self._receive, start=START)
        self.clock = QueueClock(self.dispatcher)
        self.waker = CloudTasksWaker(QUEUE, URL, ACCOUNT, host=self.dispatcher.host, clock=self.clock)

    def now(self) -> int:
        return self.clock.now()

    async def advance(self, to: int) -> list[Wake]:
        """A hop is armed between two steps of the queue's clock: the queue waits for nobody."""
        self.delivered.clear()
        while True:
            next_at = min((entry.at for entry in self.dispatcher._heap), default=to / 1000)
            await asyncio.to_thread(self.dispatcher.advance, min(next_at, to / 1000))
            hops, self._again = self._again, []
            for wake, at in hops:
                await self.waker.arm(wake, at)
            if not hops and next_at >= to / 1000:
                return list(self.delivered)

    async def close(self) -> None:
        await self.waker.close()
        self.dispatcher.close()

    def _receive(self, delivery: Delivery) -> int:
        wake = wake_from_json(delivery.body)
        later = wanted_later(delivery.headers, self.now())
        if later is not None:
            self._again.append((wake, later))
        else:
            self.delivered.append(wake)
        return 200


class Breakable:
    """A store that can be out of reach."""

    def __init__(self, store: FirestoreStore, rig: FunctionRig) -> None:
        self.store = store
        self.rig = rig

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        if self.rig.away and name in ("load", "branch", "commit", "due", "find", "delete"):
            raise StoreUnavailable("out of reach")
        return found


class Died(BaseException):
    """The process is no more."""


class Fate:
    """Counts what a function asks of Firestore and Cloud Tasks, before and after it takes effect, and lets its process
    die at one of these moments: from then on it has no effect on anything. Clients of the tests are spared.

    Attributes:
        counts: requests by kind, of the function alone: commit, get, query, arm, disarm; and documents written.
        written: how often each row's document was written, or touched by a fence.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        self.moments = 0
        self.dies_at: int | None = None
        self._dead: object = None

    def __enter__(self) -> Fate:
        self._real = [(owner, name, getattr(owner, name)) for owner, name in _CALLS]
        for owner, name, real in self._real:
            setattr(owner, name, self._around(name, real))
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, real in self._real:
            setattr(owner, name, real)

    def _around(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        async def call(subject: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.current_thread().name != "everstep":
                return await real(subject, *args, **kwargs)
            self.counts[name] += 1
            if name == "commit":
                self.counts["documents"] += len(args[0])
                self.written.update(id_of((write.update.name or write.delete).rpartition("/")[2]) for write in args[0])
            self._moment()
            answer = await real(subject, *args, **kwargs)
            self._moment()
            return answer

        return call

    def _moment(self) -> None:
        loop = asyncio.get_running_loop()
        self.moments += 1
        if self.moments == self.dies_at:
            self._dead = loop
        if self._dead is loop:
            raise Died


_CALLS: tuple[tuple[Any, str], ...] = (
    (Connection, "commit"),
    (Connection, "get"),
    (Connection, "query"),
    (CloudTasksWaker, "arm"),
    (CloudTasksWaker, "disarm"),
)


class FunctionRig:
    """The whole function in this process: Flask, the handler, Firestore's emulator, the queue on a virtual clock.

    `call` makes a request as somebody from outside.
    """

    def __init__(self, app: App, project: str, keys: Keys, steps: int | None = None, **options: Any) -> None:
        self.keys = keys
        self.dispatcher = Dispatcher(keys, send=self.send, start=START)
        self.clock = QueueClock(self.dispatcher)
        settings = Settings(
            url=URL,
            account=ACCOUNT,
            callers=(ACCOUNT,),
            audiences=(URL,),
            timeout=30,
            steps_per_invocation=steps,
            secret="0123456789abcdef0123456789abcdef",
        )
        self.away = False
        self.options: dict[str, Any] = {}
        self.verifier = Verifier((URL,), (ACCOUNT,), fetch=lambda _: certificates(keys))
        make: Callable[..., Any] = options.pop("make", handler)
        self._make = lambda: make(
            app, settings=settings, client=lambda: self.open(app, project), verifier=self.verifier, **options
        )
        self.fate = Fate()
        self.born()
        self.client = self.open(app, project)
        web = flask.Flask("tests")
        web.add_url_rule("/", "root", self._serve, defaults={"path": ""}, methods=["GET", "POST", "DELETE"])
        web.add_url_rule("/<path:path>", "any", self._serve, methods=["GET", "POST", "DELETE"])
        self.app = web
        self.web = web.test_client()

    def born(self) -> None:
        """A fresh process: nothing is kept warm, nothing is connected."""
        self.target = self._make()
        self.function = self.target.function

    def open(self, app: App, project: str) -> Client:
        store = Breakable(FirestoreStore(project, **self.options), self)
        waker = CloudTasksWaker(QUEUE, URL, ACCOUNT, host=self.dispatcher.host, clock=self.clock)
        client = Client(store, waker, app=app, clock=self.clock)  # type: ignore[arg-type]
        return client

    def _serve(self, path: str) -> Any:
        return self.target(flask.request)

    def send(self, delivery: Delivery) -> int:
        path = delivery.url.removeprefix(URL) or "/"
        try:
            return int(self.web.post(path, data=delivery.body, headers=delivery.headers).status_code)
        except Died:
            self.function._threads.stop()
            self.born()
            raise ConnectionError("the process died") from None

    def call(self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> Any:
        """A request with a valid token unless `headers` say otherwise."""
        token = {"Authorization": f"Bearer {self.keys.token(ACCOUNT, URL)}"}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        return self.web.open(
            path, method=method, data=data, headers={"Content-Type": "application/json", **token, **(headers or {})}
        )

    async def deliver(self, wake: Wake) -> bool:
        body = json.dumps({"id": wake.id, "version": wake.version}).encode()
        answer = await asyncio.to_thread(self.call, "POST", "/wake", body)
        return 200 <= answer.status_code < 300

    async def advance(self, seconds: float) -> None:
        await asyncio.to_thread(self.dispatcher.advance, self.dispatcher.now() + seconds)

    def broken(self, broken: bool) -> None:
        self.away = broken

    async def close(self) -> None:
        await self.client.close()
        await self.client.waker.close()  # type: ignore[attr-defined]
        await asyncio.to_thread(self.function.close)
        self.dispatcher.close()
