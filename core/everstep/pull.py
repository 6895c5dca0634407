"""A worker that fetches its work: no address, no server, only the store (protocol: task.acquire, heartbeat, fulfill).

It looks for pending tasks of its targets, leases one at a time for each free hand, renews the leases while it works
and settles with the outcome. Who dies leaves a lease behind that ends, and the task goes to the next of the same
target. A task that was settled or taken over meanwhile is dropped: its work is cancelled, and nothing is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from .client import Client
from .errors import InvalidArgument, PayloadTooLarge, PlatformError
from .ports import Wake
from .promise import TARGET, Payload, Record, State, TaskState
from .protocol import (
    PromiseSearch,
    PromiseSettle,
    TaskAcquire,
    TaskFulfill,
    TaskGet,
    TaskHeartbeat,
    TaskRef,
    TaskRelease,
)

_log = logging.getLogger("everstep")
_PAGE = 20
_IDLE = (0.1, 1.0)
_LOOK = 5.0
"""Seconds at most until a task that was cancelled is noticed."""


class Taken(NamedTuple):
    """A task at work: its promise's id, its parameter as JSON, and its deadline in milliseconds, None for never."""

    id: str
    param: Any
    timeout_at: int | None


Work = Callable[[Taken], Awaitable[Any]]
"""Does a task: what it returns resolves the promise, what it raises rejects it. It is cancelled when the task is no
longer this worker's."""


class Puller:
    """Fetches and does the tasks of some targets.

    Args:
        client: of the store.
        targets: as promises name them, `bash://gpu`; compared as they are.
        work: does one.
        pid: names this worker on leases; unique to the process.
        concurrency: how many at a time.
        lease: milliseconds after which a dead worker's task goes to another; renewed at a third of it at the latest.
    """

    def __init__(
        self,
        client: Client,
        targets: Sequence[str],
        work: Work,
        *,
        pid: str,
        concurrency: int = 4,
        lease: int = 15_000,
    ) -> None:
        if concurrency < 1 or lease < 100:
            raise InvalidArgument("a worker needs one hand at least, and a lease of 100 milliseconds")
        self.client = client
        self.targets = tuple(targets)
        self.pid = pid
        self.lease = lease
        self._work = work
        self._hands = concurrency
        self._busy: dict[str, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Work until cancelled; what is under way is given back then, for another worker to begin again."""
        pause = _IDLE[0]
        try:
            while True:
                try:
                    found = await self.fetch()
                except PlatformError as error:
                    _log.warning("everstep: no work could be fetched: %s", error)
                    found = 0
                pause = _IDLE[0] if found else min(pause * 1.5, _IDLE[1])
                if len(self._busy) >= self._hands:
                    await asyncio.wait(self._busy.values(), return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(pause)
        finally:
            busy = list(self._busy.values())
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)

    async def fetch(self) -> int:
        """Look once, and begin what there are hands for; returns how many were begun. Raises PlatformError."""
        begun = 0
        for target in self.targets:
            cursor: str | None = None
            while len(self._busy) < self._hands:
                request = PromiseSearch(State.PENDING, {TARGET: target}, limit=_PAGE, cursor=cursor)
                page = await self.client.service.perform(request)
                for record in page.promises:
                    if len(self._busy) < self._hands and record.id not in self._busy:
                        begun += await self._take(record)
                cursor = page.cursor
                if cursor is None:
                    break
        return begun

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._busy:
            await asyncio.wait(self._busy.values())

    async def _take(self, record: Record) -> bool:
        task = record.task
        now = self.client.clock.now()
        if task is not None and task.state is TaskState.ACQUIRED and (task.expires_at or 0) <= now:
            await self.client.service.fire(Wake(record.id))  # its worker is dead: its lease ends
            reply = await self.client.service.perform(TaskGet(record.id))
            task = reply.task.task if reply.task is not None else None
        if task is None or task.state is not TaskState.PENDING:
            return False
        request = TaskAcquire(record.id, task.version, self.pid, self.lease)
        reply = await self.client.service.perform(request)
        if reply.status != 200 or reply.task is None or reply.task.task is None:
            return False  # somebody else was faster
        ref = TaskRef(record.id, reply.task.task.version)
        self._busy[record.id] = asyncio.create_task(self._do(ref, reply.task))
        return True

    async def _do(self, ref: TaskRef, record: Record) -> None:
        doing = asyncio.ensure_future(self._outcome(record))
        try:
            while not doing.done():
                await asyncio.wait([doing], timeout=min(self.lease / 3000, _LOOK))
                if not doing.done() and not await self._still(ref):
                    return
            state, value = doing.result()
            await self._settle(ref, state, value)
        except asyncio.CancelledError:
            await self._stop(doing)
            await self.client.service.perform(TaskRelease(ref.id, ref.version))
            raise
        except PlatformError as error:
            _log.warning("everstep: %s could not be settled, and will be done again: %s", ref.id, error)
        finally:
            await self._stop(doing)
            self._busy.pop(ref.id, None)

    @staticmethod
    async def _stop(doing: asyncio.Future[Any]) -> None:
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)

    async def _still(self, ref: TaskRef) -> bool:
        """Renew the lease; whether the task is still ours to do."""
        try:
            await self.client.service.perform(TaskHeartbeat(self.pid, (ref,)))
            reply = await self.client.service.perform(TaskGet(ref.id))
        except PlatformError as error:
            _log.warning("everstep: the lease of %s could not be renewed: %s", ref.id, error)
            return True
        task = reply.task.task if reply.task is not None else None
        return task is not None and task.state is TaskState.ACQUIRED and task.version == ref.version

    async def _outcome(self, record: Record) -> tuple[State, Payload]:
        codec = self.client.codec
        try:
            param = codec.decode(await codec.internalize(record.param))
            value = await self._work(Taken(record.id, param, _deadline(record)))
            payload = codec.encode(value, f"value of {record.id}")
            return State.RESOLVED, await codec.externalize(payload, record.id, "value")
        except (PlatformError, asyncio.CancelledError):
            raise
        except PayloadTooLarge as error:
            return State.REJECTED, codec.encode_error(error)
        except Exception as error:
            return State.REJECTED, codec.encode_error(error)

    async def _settle(self, ref: TaskRef, state: State, value: Payload) -> None:
        request = TaskFulfill(ref.id, ref.version, PromiseSettle(ref.id, state, value))
        reply = await self.client.service.perform(request)
        if reply.status != 200:
            _log.info("everstep: the outcome of %s comes too late: %s", ref.id, reply.error)


def _deadline(record: Record) -> int | None:
    from .clock import NEVER

    return None if record.timeout_at == NEVER else record.timeout_at
