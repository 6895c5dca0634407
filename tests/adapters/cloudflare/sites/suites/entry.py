"""Runs the conformance suites inside workerd: real objects, real SQLite, real alarms; time alone is the suite's.

Each case works on objects of its own, named by a realm. The clock of a realm stands still until the rig moves it, and
an alarm is set for real at the instant to which it is moved. Between two turns it steps back three milliseconds.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from workers import DurableObject, Response, WorkerEntrypoint

from everstep.driver import DONE
from everstep.errors import PlatformError, StoreUnavailable
from everstep.ports import Put, Store, Wake
from everstep.registry import App
from everstep.stores.memory import MemoryStore
from everstep.testing.conformance import HandlerSuite, StoreSuite, WakerSuite
from everstep.testing.conformance.differential import compare
from everstep.testing.conformance.handlers import Work
from everstep.testing.conformance.rows import commit
from everstep_cloudflare.objects import IndexObject, Options, RunObject, client_of
from everstep_cloudflare.platform import EnvBindings, ObjectStorage
from tests.gateway import agreement
from tests.gateway.histories import histories

MARK = "\n"


class Clock:
    """Stands still within a turn, and is three milliseconds behind in every other one."""

    def __init__(self, unsteady: bool) -> None:
        self.moment = 1_900_000_000_000
        self.turns = 0
        self.unsteady = unsteady

    def now(self) -> int:
        return self.moment - (3 if self.unsteady and self.turns % 2 else 0)


@dataclass
class Realm:
    """What one case shares: plain data alone, since an object's own things belong to it."""

    name: str
    app: App
    clock: Clock
    steps: int | None = None
    records: bool = False
    alarms: dict[str, int] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    delivered: list[Wake] = field(default_factory=list)
    broken: bool = False
    raised: bool = False
    lives: int = 0


REALMS: dict[str, Realm] = {}
NAMES: list[str] = []


class RealmStorage(ObjectStorage):
    """Alarms on the realm's clock; out of reach while the realm is broken."""

    def __init__(self, ctx: Any, realm: Realm, name: str) -> None:
        super().__init__(ctx)
        self._realm = realm
        self._name = name

    def rows(self, sql: str, *values: Any) -> list[list[Any]]:
        if self._realm.broken:
            raise StoreUnavailable("out of reach")
        return super().rows(sql, *values)

    def set_alarm(self, at: int) -> None:
        """Remembered; the rig has it set for real when its time has come."""
        self._realm.alarms[self._name] = at

    def rearm(self) -> None:
        super().set_alarm(0)

    async def alarm(self) -> int | None:
        return self._realm.alarms.get(self._name)

    async def delete_all(self) -> None:
        self._realm.alarms.pop(self._name, None)
        await super().delete_all()


class RealmBindings(EnvBindings):
    def __init__(self, env: Any, realm: str) -> None:
        super().__init__(env)
        self._name = realm

    def _stub(self, binding: str, name: str) -> Any:
        return super()._stub(binding, f"{self._name}{MARK}{name}")


class Recorder:
    """In place of a host: says what was delivered, and that it is handled."""

    def __init__(self, realm: Realm, home: Any) -> None:
        self._realm = realm
        self._home = home

    async def deliver(self, wake: Wake, **_: Any) -> Any:
        self._realm.delivered.append(wake)
        for row in self._home.rows.load([wake.id]):
            if row.due is not None:
                await self._home.commit(commit(Put(row._replace(rev=row.rev + 1, due=None), row.rev)))
        return DONE


class Run(DurableObject):
    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        self.name = self.ctx.id.name
        realm, _, self.origin = self.name.partition(MARK)
        self.realm = REALMS[realm]
        self.realm.lives += 1
        self.storage = RealmStorage(self.ctx, self.realm, self.name)
        options = Options(self.realm.steps, clock=self.realm.clock)
        life = f"{realm}-{self.realm.lives}"
        self.object = RunObject(self.realm.app, self.storage, RealmBindings(self.env, realm), options, life)

    async def everstep(self, message: str) -> str:
        self.realm.clock.turns += 1
        return await self.object.answer(message)

    async def rearm(self) -> None:
        self.storage.rearm()
        await self.storage.flush()

    async def alarm(self, info: Any = None) -> None:
        self.realm.clock.turns += 1
        self.realm.alarms.pop(self.name, None)
        try:
            if self.realm.records:
                parts = self.object._at(self.origin)
                await parts[1].work(Recorder(self.realm, parts[0]), 0)
            else:
                await self.object.alarm(0)
        except PlatformError:
            self.realm.raised = True
            self.realm.alarms.setdefault(self.name, self.realm.clock.now() + 2000)  # as the platform would
        finally:
            self.realm.busy.discard(self.name)


class Index(DurableObject):
    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        realm = self.ctx.id.name.partition(MARK)[0]
        self.object = IndexObject(
            RealmStorage(self.ctx, REALMS[realm], self.ctx.id.name), RealmBindings(self.env, realm)
        )

    async def everstep(self, message: str) -> str:
        return await self.object.answer(message)


class Rig:
    """For the waker's suite and the handler's."""

    def __init__(self, env: Any, realm: Realm) -> None:
        self.env = env
        self.realm = realm
        self.client = client_of(realm.app, RealmBindings(env, realm.name), clock=realm.clock)
        self.store = self.client.store
        self.waker = self.client.waker

    def now(self) -> int:
        return self.realm.clock.moment

    async def _until(self, to: int) -> None:
        realm, clock = self.realm, self.realm.clock
        while True:
            # An event would belong to another object, and a shorter sleep starves the alarms.
            while realm.busy:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            for name in [name for name, at in realm.alarms.items() if at <= clock.now()]:
                realm.busy.add(name)
                del realm.alarms[name]
                await EnvBindings(self.env)._stub("EVERSTEP_RUNS", name).rearm()
            if realm.busy:
                continue
            at = min(realm.alarms.values(), default=None)
            if at is None or at > to:
                clock.moment = to
                if not any(at <= clock.now() for at in realm.alarms.values()):
                    return
            else:
                clock.moment = max(clock.moment + clock.unsteady, at)  # time goes on, also where it stands still

    async def deliver(self, wake: Wake) -> bool:
        """Acknowledged is what rang and ended: an alarm that raises comes again.

        A few milliseconds may pass on the way: an alarm is never set to the instant that it was set to last.
        """
        self.realm.raised = False
        try:
            await self.waker.send(wake)
        except PlatformError:
            return False
        await self._until(self.realm.clock.moment + 5)
        return not self.realm.raised

    def broken(self, broken: bool) -> None:
        self.realm.broken = broken

    async def close(self) -> None:
        REALMS.pop(self.realm.name, None)


class WakerRig(Rig):
    async def advance(self, to: int) -> list[Wake]:  # type: ignore[override]
        await self._until(to)
        delivered, self.realm.delivered = self.realm.delivered, []
        return delivered


class HandlerRig(Rig):
    async def advance(self, seconds: float) -> None:
        await self._until(self.realm.clock.moment + round(seconds * 1000))


class Suite:
    env: Any
    name: str
    query: dict[str, str]

    def realm(self, app: App, *, unsteady: bool = False, **changes: Any) -> Realm:
        realm = Realm(self.name, app, Clock(unsteady), **changes)
        REALMS[self.name] = realm
        return realm


class Stores(Suite, StoreSuite):
    async def open(self) -> Store:
        return Rig(self.env, self.realm(App("stores"))).store

    async def test_it_agrees_with_the_memory_store(self) -> None:
        """A part of what `test_quick` runs to the end: a round asks six objects."""
        done = await compare(MemoryStore(), await self.open(), random.Random(11), most_rounds=150)
        assert done.signatures > 60

    async def every_answer_agrees_with_the_oracle(self) -> str:
        """Returns the statuses met."""
        asked = {name: int(self.query[name]) for name in ("requests", "seed")}
        met = await agreement.compare(await self.open(), queue=False, **asked)
        return " ".join(sorted({str(status) for _, status in met}))

    async def histories_are_linearizable(self) -> str:
        """Returns how many operations overlapped."""
        asked = {name: int(self.query[name]) for name in ("count", "seed")}
        return str(await histories(await self.open(), queue=False, **asked))


class Wakers(Suite, WakerSuite):
    late = 0

    async def open(self) -> Any:
        return WakerRig(self.env, self.realm(App("wakers"), records=True))


class Handlers(Suite, HandlerSuite):
    by_row = True

    async def rig(self, work: Work) -> Any:
        return HandlerRig(self.env, self.realm(work.app))


class HandlersStepByStep(Handlers):
    async def rig(self, work: Work) -> Any:
        return HandlerRig(self.env, self.realm(work.app, steps=1))


class HandlersOnAnUnsteadyClock(Handlers):
    async def rig(self, work: Work) -> Any:
        return HandlerRig(self.env, self.realm(work.app, unsteady=True))


SUITES = {one.__name__: one for one in (Stores, Wakers, Handlers, HandlersStepByStep, HandlersOnAnUnsteadyClock)}


class Default(WorkerEntrypoint):
    async def fetch(self, request: Any) -> Any:
        url = urlsplit(request.url)
        if url.path == "/openapi.json":
            return Response("{}")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        suite: Any = SUITES[query["suite"]]()
        suite.env, suite.name, suite.query = self.env, f"r{len(NAMES)}", query
        NAMES.append(f"{query['suite']}.{query['test']}")
        test = getattr(suite, query["test"])
        scenario = getattr(test, "scenario", None)
        try:
            async with asyncio.timeout(60):
                said = await (scenario(suite) if scenario is not None else test())
        except BaseException:
            return Response(traceback.format_exc(), status=500)
        return Response("passed" if said is None else said)
