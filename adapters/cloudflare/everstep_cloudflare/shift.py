"""One `alarm()`: whatever is due in an object is worked on until nothing is, or its time is up.

Runs of one object go on side by side. What fails is put off in memory; what is durable says when it is due, so that an
alarm can always be set for it. Nothing is raised: the platform would try again six times and then never more (W9).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

from everstep.clock import NEVER, Clock
from everstep.driver import Retry
from everstep.errors import PlatformError
from everstep.hosting import Host
from everstep.ports import Wake

from .home import Home

_log = logging.getLogger("everstep")

LEASE = 16 * 60_000
"""The platform lets an alarm run for fifteen minutes."""
INVOCATION = 14 * 60_000
SHIFT = 15_000
"""Milliseconds in which an alarm begins new work; then the next one does, with processor time of its own."""
GUARD = 60_000
CONCURRENCY = 16
_FIRST_PAUSE = 1_000
_LAST_PAUSE = 300_000
HOLDER = "do:"
"""What the names of holders begin with that are objects: of two of them for one origin, only the younger one lives."""


class Shift:
    """The work of one object, from alarm to alarm.

    Args:
        pid: names this object on leases, in this life of it.
        stepwise: a run is delivered to once in each alarm, so that every checkpoint is an invocation of its own.
    """

    def __init__(self, home: Home, clock: Clock, pid: str, *, stepwise: bool = False) -> None:
        self._home = home
        self._clock = clock
        self.pid = pid
        self._stepwise = stepwise
        self._poked = asyncio.Event()
        self._active: dict[str, asyncio.Task[None]] = {}
        self._holding: set[str] = set()
        self._not_before: dict[str, int] = {}
        self._troubles: dict[str, int] = {}
        self._revs: dict[str, int] = {}
        self._sent: dict[Wake, None] = {}
        self._done: set[str] = set()
        self._deliveries = 0
        self._recovered = False

    def is_dead(self, pid: str) -> bool:
        """Whether a holder is certainly gone: an earlier life of this object, or a delivery of this one that ended."""
        process, _, delivery = pid.rpartition("/")
        if not process.startswith(HOLDER):
            return False
        return process != self.pid or delivery not in self._holding

    def poke(self) -> None:
        """Something may have fallen due."""
        self._poked.set()

    def send(self, wake: Wake) -> None:
        """Deliver this, whatever the rows say, in the alarm that runs or in the next one."""
        self._sent[wake] = None

    async def work(self, host: Host, retries: int = 0) -> None:
        """What `alarm()` does.

        Args:
            retries: how often the platform has tried this alarm before; then it must not be the last one.

        Raises:
            StoreError: the next alarm could not be set, so that this one must come again.
        """
        self._home.wake_up()
        self._done.clear()
        began = self._clock.now()
        if retries:
            await self._home.guard(began + GUARD)
        try:
            await self._turns(host, began)
        except PlatformError as error:
            _log.warning("everstep: %s: %s", self._home.origin, error)
        finally:
            await self._home.fall_asleep(self._next())

    async def _turns(self, host: Host, began: int) -> None:
        self._recover(host, began)
        while True:
            self._poked.clear()
            now = self._clock.now()
            if now - began < SHIFT:
                self._begin_what_is_due(host, began, now)
            if not self._active:
                return
            at = self._next()
            soon = None if at is None or now - began >= SHIFT else max(0.0, (at - now) / 1000)
            poke = asyncio.ensure_future(self._poked.wait())
            try:
                await asyncio.wait(
                    [poke, *self._active.values()], timeout=soon, return_when=asyncio.FIRST_COMPLETED
                )  # fmt: skip
            finally:
                poke.cancel()

    def _recover(self, host: Host, began: int) -> None:
        """Go on at once with what an earlier life of this object held, without waiting for its leases to end."""
        if self._recovered:
            return
        self._recovered = True
        for id, task in self._home.rows.leased():
            pid = json.loads(task).get("p")
            if isinstance(pid, str) and self.is_dead(pid):
                self._begin(host, began, Wake(id))

    def _begin_what_is_due(self, host: Host, began: int, now: int) -> None:
        for wake in [wake for wake in self._sent if wake.id not in self._active]:
            if wake.id not in self._active:
                del self._sent[wake]
                self._begin(host, began, wake)
        for due in self._home.rows.due(now, 4 * CONCURRENCY + len(self._active) + len(self._not_before)):
            if len(self._active) >= CONCURRENCY:
                return
            if self._not_before.get(due.id, 0) <= now and due.id not in self._done:
                self._begin(host, began, Wake(due.id))

    def _begin(self, host: Host, began: int, wake: Wake) -> None:
        if wake.id not in self._active:
            self._active[wake.id] = asyncio.ensure_future(self._deliver(host, wake, self._left(began)))

    def _left(self, began: int) -> Callable[[], int]:
        return lambda: began + INVOCATION - self._clock.now()

    async def _deliver(self, host: Host, wake: Wake, remaining: Callable[[], int]) -> None:
        id = wake.id
        self._deliveries += 1
        key = str(self._deliveries)
        self._holding.add(key)
        try:
            answer = await host.deliver(wake, key=key, remaining=remaining)
            if self._stepwise:
                self._done.add(id)
            if isinstance(answer, Retry):
                self._not_before[id] = answer.at
            else:
                self._settled_down(id)
        except PlatformError as error:
            self._put_off(id, str(error))
        except Exception as error:
            # A mistake of ours, not of the platform: say so, and do not spin on it.
            _log.exception("everstep: the delivery of %s failed", id)
            self._put_off(id, f"{type(error).__name__}: {error}")
        finally:
            self._holding.discard(key)
            del self._active[id]

    def _settled_down(self, id: str) -> None:
        """What a delivery left as it was, and still due, is not delivered again at once."""
        row = next(iter(self._home.rows.load([id])), None)
        if row is not None and row.due is not None and row.due <= self._clock.now() and self._revs.get(id) == row.rev:
            self._put_off(id, "nothing changed")
            return
        self._not_before.pop(id, None)
        self._troubles.pop(id, None)
        self._revs.pop(id, None)
        if row is not None and row.due is not None:
            self._revs[id] = row.rev

    def _put_off(self, id: str, why: str) -> None:
        times = self._troubles[id] = self._troubles.get(id, 0) + 1
        self._not_before[id] = self._clock.now() + min(_FIRST_PAUSE * 2 ** (times - 1), _LAST_PAUSE)
        _log.warning("everstep: %s is put off: %s", id, why)

    def _next(self) -> int | None:
        """When something here is to be looked at next that is not being worked on."""
        now = self._clock.now()
        if any(wake.id not in self._active for wake in self._sent):
            return now
        if not self._not_before and not self._active:
            return self._home.rows.next_due()
        waiting = [
            max(due.due, self._not_before.get(due.id, 0))
            for due in self._home.rows.due(NEVER - 1, 10_000)
            if due.id not in self._active
        ]
        return min(waiting, default=None)
