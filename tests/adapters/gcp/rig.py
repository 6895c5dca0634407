"""What the suites hold: the handler behind Flask, as functions-framework has it, and the queue on a virtual clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import flask

from everstep.client import Client
from everstep.errors import StoreUnavailable
from everstep.hosting import wake_from_json
from everstep.ports import Store, Wake
from everstep.registry import App
from everstep.stores.memory import MemoryStore
from everstep_gcp import CloudTasksWaker, Settings, Verifier, handler
from everstep_gcp.store import FirestoreStore
from everstep_gcp.waker import wanted_later

from .dispatcher import Delivery, Dispatcher
from .tokens import Keys

QUEUE = "projects/demo/locations/europe-west1/queues/wake"
ACCOUNT = "wake@demo.iam.gserviceaccount.com"
URL = "https://fn.example"
START = 1_800_000_000.0


class QueueClock:
    """The dispatcher's clock, in milliseconds."""

    def __init__(self, dispatcher: Dispatcher | None = None) -> None:
        self.dispatcher = dispatcher

    def now(self) -> int:
        return round(self.dispatcher.now() * 1000) if self.dispatcher is not None else round(START * 1000)


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
        self.verifier = Verifier((URL,), (ACCOUNT,), fetch=lambda _: certificates(keys))
        make: Callable[..., Any] = options.pop("make", handler)
        self.target = make(
            app, settings=settings, client=lambda: self.open(app, project), verifier=self.verifier, **options
        )
        self.function = self.target.function
        self.client = self.open(app, project)
        web = flask.Flask("tests")
        web.add_url_rule("/", "root", self._serve, defaults={"path": ""}, methods=["GET", "POST", "DELETE"])
        web.add_url_rule("/<path:path>", "any", self._serve, methods=["GET", "POST", "DELETE"])
        self.web = web.test_client()

    def open(self, app: App, project: str) -> Client:
        store = Breakable(FirestoreStore(project), self)
        waker = CloudTasksWaker(QUEUE, URL, ACCOUNT, host=self.dispatcher.host, clock=self.clock)
        client = Client(store, waker, app=app, clock=self.clock)  # type: ignore[arg-type]
        return client

    def _serve(self, path: str) -> Any:
        return self.target(flask.request)

    def send(self, delivery: Delivery) -> int:
        path = delivery.url.removeprefix(URL) or "/"
        return int(self.web.post(path, data=delivery.body, headers=delivery.headers).status_code)

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
