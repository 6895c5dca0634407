"""The simulated world: instances of a function, the platform that calls them, and one scheduler that owns time.

Every store and waker call of every instance passes `World.passage`, where a director may hold it, break it, or kill the
caller. One thing happens at a time, so a history is a function of the App, the seed and the calls of the test.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextvars import ContextVar
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from everstep.clock import VirtualClock
from everstep.driver import DONE, Driver
from everstep.errors import InvalidArgument, PlatformError
from everstep.ids import origin_of
from everstep.kernel import Config
from everstep.ports import Beside, Claim, Commit, Due, Page, Put, Query, Refused, Resumed, Wake
from everstep.promise import TARGET, group_of
from everstep.resuming import candidates, inbox_of, taken
from everstep.rows import Row, from_row, to_row
from everstep.service import Service
from everstep.stores.memory import MemoryStore

from .platform import Message, Platform, Queue, Receipt, Rows
from .virtual import VirtualLoop

if TYPE_CHECKING:
    from everstep.registry import App

    from .faults import Chaos

T = TypeVar("T")

SETTLE_DELAY = 1
"""Milliseconds that mark a wake-up as armed for `now`, ahead of its commit (rule W3): the queue delivers it at once."""

_BUSY_TURNS = 200_000


class Crashed(BaseException):
    """The instance is dead: nothing it does has an effect any more."""


class Stuck(AssertionError):
    """The simulation goes round in circles, or an invocation raised what no invocation may raise."""


class Event(NamedTuple):
    """Something that happened: `kind` and `detail` as the driver tells it, or a fault."""

    at: int
    who: str
    kind: str
    id: str
    detail: dict[str, Any]

    def __str__(self) -> str:
        detail = " ".join(f"{key}={value!r}" for key, value in self.detail.items())
        return f"{self.at} {self.who:>8} {self.kind:<10} {self.id} {detail}".rstrip()


class Director(Protocol):
    """Decides what becomes of a call. May wait in `World.hold`, and may raise Crashed, StoreError or WakerError."""

    async def before(self, caller: Caller, point: str, subject: str) -> None: ...
    async def after(self, caller: Caller, point: str, subject: str) -> None: ...


class Tally:
    """What one run asked of its store and waker."""

    __slots__ = ("counts", "invocations", "read", "writes", "written")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.read: list[Row] = []
        self.written: list[Row] = []
        self.invocations = 0
        self.writes: Counter[str] = Counter()


_payer: ContextVar[str | None] = ContextVar("everstep_payer", default=None)
delivery: ContextVar[int] = ContextVar("everstep_delivery", default=0)
"""Which delivery the code that runs now belongs to."""


class SkewedClock:
    """An instance's clock: the world's, and a little off."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.skew = 0

    def now(self) -> int:
        return self._clock.now() + self.skew


class Caller:
    """A process that uses the store and the waker: an instance of the function, or a client."""

    def __init__(self, world: World, name: str, *, client: bool = False) -> None:
        self.world = world
        self.name = name
        self.client = client
        self.alive = True
        self.stalled = 0
        self.clock = SkewedClock(world.clock)
        self.store = _Store(self)
        self.waker = _Waker(self)
        self.service = world.make_service(self)
        self.tasks: dict[asyncio.Task[Any], Receipt] = {}

    async def passage(self, point: str, subject: str, effect: Coroutine[Any, Any, T]) -> T:
        world = self.world
        if not self.alive:
            effect.close()
            raise Crashed(self.name)
        director = world.director
        if director is None:
            return await effect
        try:
            await director.before(self, point, subject)
            if not self.alive:
                raise Crashed(self.name)
        except BaseException:
            effect.close()
            raise
        result = await effect
        for observer in world.observers:
            observer()
        await director.after(self, point, subject)
        if not self.alive:
            raise Crashed(self.name)
        return result

    def crash(self, *, quiet: bool = False) -> None:
        """Die now: what is under way never has another effect, what was kept warm is gone."""
        if not self.alive:
            return
        self.alive = False
        if not quiet:
            self.world.tell(self, "crash", "")
        for task, receipt in self.tasks.items():
            self.world.platform.died(receipt)
            task.cancel()
        self.tasks.clear()


class Instance(Caller):
    """One instance of the function of an App."""

    def __init__(self, world: World, name: str, app: App) -> None:
        super().__init__(world, name)
        self.app = app
        self.started = 0
        self.driver: Driver = world.make_driver(self)

    def crash(self, *, quiet: bool = False) -> None:
        super().crash(quiet=quiet)
        self.driver.cold()


class _Store:
    """A caller's way to the one store, and its count."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._world = caller.world
        self._store = caller.world.store
        if self._world.resumes:
            self.resume = self._resume

    @property
    def single_writer(self) -> bool:
        return self._world.single_writer

    @property
    def folds(self) -> bool:
        return self._world.single_writer

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        tally = self._tally("store.load", ids[0] if ids else "")
        rows = await self._caller.passage("store.load", ids[0] if ids else "", self._store.load(ids))
        tally.read += rows.values()
        return rows

    async def branch(self, id: str) -> list[Row]:
        tally = self._tally("store.branch", id)
        rows = await self._caller.passage("store.branch", id, self._store.branch(id))
        tally.read += rows
        for watcher in self._world.readers:
            watcher(self._caller, id, rows)
        return rows

    async def commit(self, commit: Commit) -> Refused | None:
        tally = self._tally("store.commit", commit.origin)
        for put in commit.puts:
            tally.writes[put.row.id] += 1
        subject = commit.puts[0].row.id if commit.puts else commit.deletes[0] if commit.deletes else commit.origin
        refused = await self._caller.passage("store.commit", subject, self._world.commit(self._caller, commit))
        if refused is None:
            tally.written += [put.row for put in commit.puts]
        return refused

    async def _resume(self, id: str, claim: Claim, beside: Beside | None = None) -> Resumed:
        tally = self._tally("store.resume", id)
        found = await self._caller.passage("store.resume", id, self._world.resume(self._caller, id, claim, beside))
        tally.read += found.rows
        if found.inbox is not None:
            tally.writes[id] += 1
            tally.written.append(self._world.store._rows[id])
        for watcher in self._world.readers:
            watcher(self._caller, id, found.rows)
        return found

    async def due(self, now: int, limit: int) -> list[Due]:
        self._tally("store.due", "")
        return await self._caller.passage("store.due", "", self._store.due(now, limit))

    async def find(self, query: Query) -> Page:
        tally = self._tally("store.find", "")
        page = await self._caller.passage("store.find", "", self._store.find(query))
        tally.read += page.rows
        return page

    async def delete(self, origin: str) -> int:
        self._tally("store.delete", origin)
        return await self._caller.passage("store.delete", origin, self._store.delete(origin))

    async def close(self) -> None:
        pass

    def _tally(self, call: str, id: str) -> Tally:
        return self._world.count(self._caller, call.partition(".")[2], id)


class _Waker:
    """A caller's way to the platform's wake-ups, and its count."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._world = caller.world

    @property
    def by_row(self) -> bool:
        return self._world.platform.by_row

    async def arm(self, wake: Wake, at: int) -> str | None:
        self._world.count(self._caller, "armed", wake.id)
        return await self._caller.passage("waker.arm", wake.id, self._arm(wake, at))

    async def disarm(self, token: str) -> None:
        self._world.count(self._caller, "disarmed", "")
        await self._caller.passage("waker.disarm", "", self._disarm(token))

    async def send(self, wake: Wake) -> None:
        self._world.count(self._caller, "sent", wake.id)
        await self._caller.passage("waker.send", wake.id, self._send(wake))

    async def _arm(self, wake: Wake, at: int) -> str | None:
        soon = self._world.chaos is None and at - self._caller.clock.now() == SETTLE_DELAY
        return self._world.platform.arm(wake, at, soon=soon)

    async def _disarm(self, token: str) -> None:
        self._world.platform.disarm(token)

    async def _send(self, wake: Wake) -> None:
        self._world.platform.send(wake)


class World:
    """Everything there is in one history.

    Args:
        mode: "queue" or "rows", the model of the platform.
        others: Apps with functions of their own on the same store, each called for what is addressed to it.
        lease: milliseconds.
        single_writer: False for a store that checks neither guards nor soft fences.
        resumes: whether the store acquires and loads in one request.
        options: passed on to each Driver.
    """

    def __init__(
        self,
        app: App,
        *,
        seed: int = 0,
        instances: int = 1,
        others: Sequence[App] = (),
        mode: str = "rows",
        lease: int = 60_000,
        single_writer: bool = True,
        resumes: bool = False,
        tokens: bool = True,
        options: dict[str, Any] | None = None,
        director: Director | None = None,
        settle_delay: int = SETTLE_DELAY,
        start_at: int = 1_700_000_000_000,
    ) -> None:
        if mode == "rows" and not single_writer:
            raise InvalidArgument("a platform that reads the store's due rows has a store with a single writer")
        if mode != "rows" and resumes:
            raise InvalidArgument("what a store acquires by itself, nobody arms: its own due rows are the alarm")
        self.app = app
        self.apps = {one.target: one for one in (app, *others)}
        self.random = Random(seed)
        self.clock = VirtualClock(start_at)
        self.loop: VirtualLoop = VirtualLoop(self.clock)  # type: ignore[abstract]
        self.store = MemoryStore()
        self.single_writer = single_writer
        self.resumes = resumes
        self.lease = lease
        self.mode = mode
        self.options = options or {}
        self.director = director
        visibility = lease + 30_000
        self.platform: Platform = (
            Queue(self.clock, visibility, tokens=tokens)
            if mode == "queue"
            else Rows(self.clock, self.store, visibility)
        )
        self.settle_delay = settle_delay
        self.chaos: Chaos | None = None
        self.errors: list[BaseException] = []
        self.events: list[Event] = []
        self.verbose = True
        self.executions: Counter[tuple[str, str]] = Counter()
        self.tallies: dict[tuple[str, bool], Tally] = {}
        self.observers: list[Callable[[], None]] = []
        self.readers: list[Callable[[Caller, str, list[Row]], None]] = []
        self.writers: list[Callable[[Caller, Commit, dict[str, Row | None]], None]] = []
        self.listeners: list[Callable[[Event], None]] = []
        self.holds: list[tuple[int, int, asyncio.Future[None]]] = []
        self._held = 0
        self._turns = 0
        self._named = 0
        self._deliveries = 0
        self.keys: dict[int, str] = {}
        self.fresh: dict[int, int] = {}
        """Deliveries that have not acquired anything yet, and when they began."""
        self.callers: dict[str, Caller] = {}
        self.wanted = instances
        self.instances: list[Instance] = []
        for one in self.apps.values():
            for _ in range(instances):
                self.add_instance(one)

    # Who there is.

    def make_service(self, caller: Caller) -> Service:
        config = Config(settle_delay=self.settle_delay)
        return Service(caller.store, caller.waker, caller.clock, config=config)

    def make_driver(self, instance: Instance) -> Driver:
        options = dict(self.options)
        budget = options.pop("budget", None)
        if budget is not None:
            options["remaining"] = lambda: instance.started + budget - instance.clock.now()
        return Driver(
            instance.app,
            instance.store,
            instance.waker,
            instance.clock,
            service=instance.service,
            pid=instance.name,
            lease=self.lease,
            tell=lambda kind, id, /, **detail: self.tell(instance, kind, id, **detail),
            **options,
        )

    def disturb(self, chaos: Chaos) -> None:
        """Let things go wrong, as `chaos` says."""
        self.chaos = self.director = chaos
        for instance in self.instances:
            chaos.born(instance)

    def add_instance(self, app: App | None = None) -> Instance:
        self._named += 1
        instance = Instance(self, f"i{self._named}", app if app is not None else self.app)
        if self.chaos is not None:
            self.chaos.born(instance)
        self.instances.append(instance)
        self.callers[instance.name] = instance
        return instance

    def dead(self, pid: str) -> bool:
        """Whether the process that bears this name on a lease is certainly dead."""
        caller = self.callers.get(pid.partition("/")[0])
        return caller is not None and not caller.alive

    def kill(self) -> None:
        """Every instance dies now, and fresh ones stand ready."""
        for instance in self.instances:
            instance.crash()
        self.loop.drain()

    def tell(self, caller: Caller, kind: str, id: str, /, **detail: Any) -> None:
        if kind == "step":
            self.executions[detail["name"], id] += 1
        elif kind == "acquired":
            self.fresh.pop(delivery.get(), None)
            self.tally(id, client=False).invocations += 1
        event = Event(self.clock.now(), caller.name, kind, id, detail)
        if self.verbose:
            self.events.append(event)
        for listener in self.listeners:
            listener(event)

    # What it costs.

    def tally(self, id: str, *, client: bool) -> Tally:
        key = (origin_of(id), client)
        found = self.tallies.get(key)
        if found is None:
            found = self.tallies[key] = Tally()
        return found

    def count(self, caller: Caller, what: str, id: str) -> Tally:
        tally = self.tally(_payer.get() or id, client=caller.client)
        tally.counts[what] += 1
        return tally

    # What happens.

    async def commit(self, caller: Caller, commit: Commit) -> Refused | None:
        """The store's commit, as a store of this kind would do it."""
        if not self.single_writer:
            fence = commit.fence
            commit = commit._replace(guards=(), fence=None if fence is not None and fence.soft else fence)
        if not self.writers:
            return await self.store.commit(commit)
        before = {put.row.id: self.store._rows.get(put.row.id) for put in commit.puts}
        refused = await self.store.commit(commit)
        if refused is None:
            for writer in self.writers:
                writer(caller, commit, before)
        return refused

    async def resume(self, caller: Caller, id: str, claim: Claim, beside: Beside | None) -> Resumed:
        """The store's resume (`ports.Resumes`), by the functions that say what it means."""
        row = (await self.store.load([id])).get(id)
        if row is None or row.task is None:
            return Resumed([] if row is None else await self.store.branch(id), None)
        record = from_row(row)
        task = record.task
        assert task is not None
        apart = list((await self.store.load([other for _, other in task.foreign])).values())
        others = await self.store.load(candidates(record))
        inbox = inbox_of(record, {one.id: from_row(one) for one in [*others.values(), *apart]}, claim)
        claimed = taken(record, inbox, claim) if inbox is not None else None
        if claimed is not None:
            put = Put(to_row(claimed._replace(rev=row.rev + 1)), row.rev)
            if await self.commit(caller, Commit(origin_of(id), (put,))) is not None:
                raise AssertionError(f"{id}: nobody can have come between")
        if beside is not None and beside.version == task.version:
            wanted = [one for one in dict.fromkeys([*beside.ids, *(inbox or ())]) if one != id]
            rows = list((await self.store.load(wanted)).values())
        else:
            rows = [one for one in await self.store.branch(id) if one.id != id]
        return Resumed([row, *rows, *apart], inbox if claimed is not None else None)

    async def hold(self, caller: Caller, until: int) -> None:
        """Let a call wait until an instant, and until the scheduler picks it."""
        future: asyncio.Future[None] = self.loop.create_future()
        self._held += 1
        self.holds.append((until, self._held, future))
        caller.stalled += 1
        try:
            await future
        finally:
            caller.stalled -= 1

    def turn(self, until: int) -> bool:
        """Let one thing happen, moving time where it must move, but not beyond `until`. False when there is nothing."""
        self.loop.drain()
        self._raise_errors()
        chaos = self.chaos
        if chaos is not None:
            chaos.meanwhile()
        now = self.clock.now()
        self.platform.eager = not self.holds
        due = self.platform.due()
        free = [hold for hold in self.holds if hold[0] <= now]
        if due or free:
            self._turns += 1
            if self._turns > _BUSY_TURNS:
                raise Stuck("the same instant goes on for ever:\n" + self.trace())
            index = 0 if chaos is None else self.random.randrange(len(due) + len(free))
            if index < len(due):
                if chaos is None or chaos.delivers(due[index]):
                    self.deliver(due[index])
            else:
                hold = free[index - len(due)]
                self.holds.remove(hold)
                if not hold[2].done():
                    hold[2].set_result(None)
            self.loop.drain()
            return True
        moments = [at for at, _, _ in self.holds]
        for moment in (self.platform.next_at(), self.loop.next_at()):
            if moment is not None:
                moments.append(moment)
        if not moments:
            return False
        at = min(moments)
        if at > until:
            return False
        if at > now:
            self._turns = 0
            self.clock.set(at)
        else:
            self._turns += 1
        self.loop.wake()
        self.loop.drain()
        return True

    def deliver(self, message: Message) -> None:
        """Call an instance with a message."""
        instance = self.choose(self.app_of(message.wake.id))
        receipt = Receipt(message, 0) if message.gone else self.platform.take(message)
        instance.started = instance.clock.now()
        task = self.loop.create_task(self._deliver(instance, receipt))
        instance.tasks[task] = receipt
        self.loop.drain()

    def invoke(self, wake: Wake) -> None:
        """Call an instance directly, with no message behind the call: nobody repeats it (rule W6)."""
        self.deliver(Message(0, wake, self.clock.now(), gone=True))

    def app_of(self, id: str) -> App:
        """Whose function is called for a record: the one its target names, or the first."""
        if len(self.apps) == 1:
            return self.app
        row = self.store._rows.get(id)
        target = from_row(row).tags.get(TARGET, "") if row is not None else ""
        return self.apps.get(group_of(target), self.app)

    def choose(self, app: App) -> Instance:
        self.instances = [one for one in self.instances if one.alive]
        while sum(one.app is app for one in self.instances) < self.wanted:
            self.add_instance(app)
        ready = [one for one in self.instances if one.app is app and (self.chaos is not None or not one.stalled)]
        if not ready:
            return self.add_instance(app)
        return ready[0] if len(ready) == 1 else self.random.choice(ready)

    async def _deliver(self, instance: Instance, receipt: Receipt) -> None:
        message = receipt.message
        _payer.set(origin_of(message.wake.id))
        self._deliveries += 1
        delivery.set(self._deliveries)
        self.fresh[self._deliveries] = self.clock.now()
        self.keys[self._deliveries] = message.key
        platform = self.platform
        self.count(instance, "delivered", message.wake.id)
        task = asyncio.current_task()
        assert task is not None
        try:
            try:
                held = not platform.by_row and not message.gone
                answer = await instance.driver.deliver(
                    message.wake, held=held, key=message.key if held else "", attempt=max(receipt.number, 1)
                )
            except PlatformError as error:
                if instance.alive:
                    self.tell(instance, "trouble", message.wake.id, error=f"{type(error).__name__}: {error}")
                    platform.failed(receipt)
                return
            if instance.alive:
                platform.answered(receipt, answer)
        except Crashed:
            return
        except asyncio.CancelledError:
            if instance.alive:
                raise
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.fresh.pop(delivery.get(), None)
            instance.tasks.pop(task, None)

    def _raise_errors(self) -> None:
        if self.errors:
            error = self.errors[0]
            self.errors = []
            raise Stuck(f"an invocation raised {type(error).__name__}: {error}\n{self.trace()}") from error

    def complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a client's call to its end, the rest of the world going on where the call has to wait."""
        task = self.loop.create_task(coroutine)
        self.loop.drain()
        while not task.done():
            if not self.turn(self.clock.now() + 10 * self.platform.visibility):
                task.cancel()
                self.loop.drain()
                raise Stuck("a client's call never ended:\n" + self.trace())
        return task.result()  # type: ignore[no-any-return]

    @property
    def idle(self) -> bool:
        """Nobody is at work: what there is, waits."""
        return not any(instance.tasks for instance in self.instances)

    def trace(self, last: int = 60) -> str:
        return "\n".join(str(event) for event in self.events[-last:])


def size(rows: Iterable[Row]) -> int:
    """The length of the text in some rows, close to bytes for a price."""
    return sum(len(cell) for row in rows for cell in row if isinstance(cell, str))


__all__ = ["DONE", "Caller", "Crashed", "Director", "Event", "Instance", "Stuck", "Tally", "World"]
