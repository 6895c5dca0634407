"""The embedded runtime: one asyncio loop, one process, an SQLite file (or memory) that other processes may share.

The store's due rows are the truth; the waker only shortens the wait. A process that is killed leaves its lease behind,
and since its lock on the liveness file is gone with it, the next one takes over at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from .client import Client, Handle
from .clock import Clock, SystemClock
from .driver import Driver
from .errors import NotFound, PlatformError, StoreCorrupted, StoreFull, StoreReadOnly, StoreTooNew
from .ports import Due, Store, Wake
from .promise import State, TaskState
from .registry import App
from .rows import from_row
from .stores import open_store
from .wakers.local import LocalWaker

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("everstep")
LEASE = 60_000
_FAR = 2**62
_IDLE = 0.5
_SWEEP_EVERY = 300_000
_FINAL = (StoreCorrupted, StoreFull, StoreReadOnly, StoreTooNew)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a run: `acquired`, `replayed`, `step`, `failed`, `delivered`, `created`, `suspended`,
    `released`, `settled`, `halted`, `continued`, `lost`. `at` is in milliseconds."""

    kind: str
    id: str
    at: int
    detail: dict[str, Any] = field(default_factory=dict)


class Runtime:
    """Runs the tasks of an App on an embedded store in this process; an async context manager.

    Args:
        app: the App.
        url: of an embedded store, `sqlite:///everstep.db` by default; or an open store.
        concurrency: how many runs are worked on at a time.
        steps_per_invocation: end an invocation after so many checkpoints; None: when the body waits.
        on_event: is told of what happens.
        threads: run blocking steps beside the loop: "never", "auto" (when others run too) or "always".
        member: the name of this worker in its App's group, for targets that prefer one (`everstep://<app>/<member>`).
    """

    def __init__(
        self,
        app: App,
        url: str | Store = "sqlite:///everstep.db",
        *,
        concurrency: int = 16,
        steps_per_invocation: int | None = None,
        on_event: Callable[[Event], None] | None = None,
        clock: Clock | None = None,
        threads: str = "auto",
        member: str | None = None,
    ) -> None:
        self.app = app
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.store = open_store(url) if isinstance(url, str) else url
        make: Callable[[], LocalWaker] | None = getattr(self.store, "local_waker", None)
        self.waker = make() if make is not None else LocalWaker()
        self.client = Client(self.store, self.waker, app=app, clock=self.clock)
        self._on_event = on_event
        self._concurrency = concurrency
        self._liveness = _liveness(self.store)
        self._watched: set[str] = set()
        self._active: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, int] = {}
        self._revs: dict[str, int] = {}
        self._final: PlatformError | None = None
        # Unique among all that share the store: its own deliveries are the ones it may take for dead.
        self._pid = self._liveness.token if self._liveness is not None else f"local:{os.urandom(8).hex()}"
        self._deliveries = 0
        self._at_work: set[str] = set()
        self.driver = Driver(
            app,
            self.store,
            self.waker,
            self.clock,
            service=self.client.service,
            codec=self.client.codec,
            pid=self._pid,
            lease=LEASE,
            heartbeat=True,
            steps_per_invocation=steps_per_invocation,
            moment=20,
            use_threads=threads,
            member=member,
            dead=self._is_dead,
            tell=self._tell,
            tells_steps=on_event is not None,
        )

    def _is_dead(self, pid: str) -> bool:
        """Whether a holder is certainly gone: its process, or here the delivery it was."""
        process, _, delivery = pid.rpartition("/")
        if process == self._pid:
            return delivery not in self._at_work
        return self._liveness is not None and not self._liveness.alive(process or pid)

    def _tell(self, kind: str, id: str, /, **detail: Any) -> None:
        if kind in ("created", "attached"):
            self._watched.add(id)
        if self._on_event is not None:
            self._on_event(Event(kind, id, self.clock.now(), detail))

    async def __aenter__(self) -> Runtime:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self.driver.cold()
        await self.waker.close()
        await self.store.close()
        if self._liveness is not None:
            self._liveness.close()

    async def stop(self) -> None:
        """End what is being worked on; its leases end with this process."""
        active = list(self._active.values())
        for task in active:
            task.cancel()
        await asyncio.gather(*active, return_exceptions=True)

    async def serve(self) -> None:
        """Work on everything, until cancelled. A sweep runs at the start and every five minutes."""
        swept = -_SWEEP_EVERY
        await self._recover(None)
        try:
            while True:
                if self.clock.now() - swept >= _SWEEP_EVERY:
                    swept = self.clock.now()
                    await self.client.sweep()
                await self._turn(None)
        finally:
            await self.stop()

    async def run(self, workflow: Any, /, *args: Any, id: str, **kwargs: Any) -> Handle[Any]:
        """Start a workflow, or attach to it, and work on it until it is settled or halted."""
        handle = await self.client.start(workflow, *args, id=id, **kwargs)
        await self.drive(id)
        return handle

    async def drive(self, id: str) -> None:
        """Work on one run, and on what it needs, until it is settled or halted.

        Raises:
            NotFound: there is no such run.
            StoreCorrupted, StoreFull, StoreReadOnly, StoreTooNew: waiting does not mend it; the run is kept as it is.
        """
        self._final = None
        await self._watch(id)
        await self._recover(self._watched)
        try:
            while True:
                row = (await self.store.load([id])).get(id)
                if row is None:
                    raise NotFound(f"no promise {id!r}")
                record = from_row(row)
                if record.state is not State.PENDING or (
                    record.task is not None and record.task.state is TaskState.HALTED
                ):
                    return
                await self._turn(self._watched)
        finally:
            await self.stop()

    async def _watch(self, id: str) -> None:
        """Know a run and all it has started, from its records; what it starts from now on is told by the driver."""
        unseen = [id]
        while unseen:
            branch = unseen.pop()
            self._watched.add(branch)
            for row in await self.store.branch(branch):
                if row.state == State.PENDING.value and row.id not in self._watched:
                    unseen.append(row.id)
                task = from_row(row).task if row.id == branch else None
                if task is not None:
                    unseen.extend([other for _, other in task.foreign if other not in self._watched])

    async def _recover(self, watched: set[str] | None) -> None:
        """Take over from processes that are dead, without waiting for their leases to end."""
        if self._liveness is not None:
            self._liveness.sweep()
        for due in await self._due(self.clock.now() + 2 * LEASE, watched):
            row = (await self.store.load([due.id])).get(due.id)
            if row is not None and row.lease is not None:
                task = from_row(row).task
                if task is not None and task.pid is not None and self._is_dead(task.pid):
                    self._begin(due.id)

    async def _due(self, until: int, watched: set[str] | None) -> list[Due]:
        """What is due: anything, or of the watched ones alone, however many others there are."""
        if watched is None:
            # What was put off stands at the head of the line, perhaps for long: another App's work is never done here.
            return await self.store.due(until, 4 * self._concurrency + len(self._not_before))
        asked = sorted(watched)  # while a store answers, more may be added
        rows = await self.store.load(asked)
        watched.difference_update(
            id for id in asked if id not in rows or (rows[id].due is None and rows[id].state != "pending")
        )
        return sorted([Due(row.id, row.due) for row in rows.values() if row.due is not None and row.due <= until],
                      key=lambda due: due.due)  # fmt: skip

    async def _turn(self, watched: set[str] | None) -> None:
        """Begin what is due, then wait until something else is, or something ends."""
        now = self.clock.now()
        self.waker.take(now)
        try:
            for id in [id for id, at in self._not_before.items() if at <= now]:
                del self._not_before[id]
                self._begin(id)
            found = await self._due(now, watched)
            for due in found:
                if len(self._active) >= self._concurrency:
                    break
                if due.id not in self._active and due.id not in self._not_before:
                    self._begin(due.id)
            upcoming = await self._due(_FAR, watched) if len(found) == 0 else []
        except PlatformError as error:
            if watched is not None and isinstance(error, _FINAL):
                raise
            self._tell("trouble", "", error=str(error))
            await asyncio.sleep(_IDLE)
            return
        waiting = [due.due for due in upcoming if due.id not in self._active]
        next_at = min([*waiting, *self._not_before.values()], default=None)
        idle = self.waker.idle if not found else _IDLE
        seconds = idle if next_at is None else min(idle, max(0.0, (next_at - now) / 1000))
        if len(found) > len(self._active) and len(self._active) < self._concurrency:
            seconds = min(seconds, 0.05)
        poke = asyncio.ensure_future(self.waker.wait(seconds))
        try:
            await asyncio.wait([poke, *self._active.values()], return_when=asyncio.FIRST_COMPLETED)
        finally:
            poke.cancel()
        if watched is not None and self._final is not None:
            raise self._final

    def _begin(self, id: str) -> None:
        if id not in self._active:
            self._active[id] = asyncio.create_task(self._deliver(id))

    async def _deliver(self, id: str) -> None:
        self._deliveries += 1
        key = str(self._deliveries)
        self._at_work.add(key)
        try:
            await self.driver.deliver(Wake(id), key=key)
            row = (await self.store.load([id])).get(id)
            now = self.clock.now()
            if row is not None and row.due is not None and row.due <= now and self._stuck(id, row.rev):
                self._not_before[id] = now + 1000
        except PlatformError as error:
            self._final = error if isinstance(error, _FINAL) else None
            self._trouble(id, str(error))
        except Exception as error:
            # A mistake of ours, not of the platform: say so, and do not spin on it.
            _log.exception("everstep: the delivery of %s failed", id)
            self._trouble(id, f"{type(error).__name__}: {error}")
        finally:
            self._at_work.discard(key)
            self._active.pop(id, None)
            self.waker.ring()  # it may end while the loop waits for the store, and not for it

    def _trouble(self, id: str, error: str) -> None:
        self._not_before[id] = self.clock.now() + 1000
        self._tell("trouble", id, error=error)

    def _stuck(self, id: str, rev: int) -> bool:
        """Whether a delivery left the record as it was: then looking again at once would spin."""
        before, self._revs[id] = self._revs.get(id), rev
        if len(self._revs) > 4096:
            self._revs.clear()
        return before == rev


def _liveness(store: Store) -> Any:
    path = getattr(store, "path", None)
    if path is None:
        return None
    from .stores.liveness import Liveness

    try:
        return Liveness(path)
    except OSError:
        return None
