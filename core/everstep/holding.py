"""The lease on one task, and everything that is written under it.

Every write here carries the fence of the version that was acquired (rule F1): a holder that lost its lease gets
LeaseLost and has changed nothing. The order is that of the writer: arm, commit, disarm, send.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .clock import NEVER
from .errors import LeaseLost, PlatformError
from .folding import Folding, trimmed
from .lifecycle import acquire, halt, heartbeat, release
from .ports import Fence, Guard, Refused
from .promise import Plan, Record, State, Task
from .rows import from_row
from .writer import Change, Entity, Written

if TYPE_CHECKING:
    from .driver import Driver

_SKEW = 1_000
"""Milliseconds by which the clocks of two holders may differ."""


class Holding:
    """One holder's hold on one task.

    Args:
        held_until: until then (milliseconds) a message stands behind this invocation and comes back if it dies, so that
            a lease taken until then owes no wake-up at its end (rule W6); 0 where none does.
        holder: names the holder in the record: its process, and after a slash the message that it lives on.
    """

    def __init__(self, driver: Driver, record: Record, *, held_until: int, holder: str) -> None:
        self.driver = driver
        self.id = record.id
        self._hold(record)
        self._held_until = held_until
        self._holder = holder
        self._hand = holder.rpartition("/")[2] if "/" in holder else ""
        self.folded = 0
        self._beat: asyncio.Task[None] | None = None

    def _hold(self, record: Record) -> None:
        """This record stands now; what each step asks of it is worked out once."""
        self.record = record
        self.soft_fence = self.fence(soft=True)
        ends = self.task.expires_at
        self._stops_at = NEVER if ends is None else ends - min(_SKEW, self.driver.lease // 10)

    @property
    def task(self) -> Task:
        assert self.record.task is not None
        return self.record.task

    def now(self) -> int:
        return self.driver.clock.now()

    def fence(self, *, soft: bool = False) -> Fence:
        return Fence(self.id, self.task.version, soft)

    async def acquire(
        self, inbox: tuple[str, ...], start: int, overdue: list[Change], *, progressed: bool, expired: bool = False
    ) -> bool:
        """Take the task, or say that it cannot be had. What arrived meanwhile is delivered by the same write (P2.2)."""
        taken = acquire(
            self.record,
            self.now(),
            self._holder,
            self.driver.lease,
            inbox,
            start,
            progressed=progressed,
            expired=expired,
        )
        if taken is None or taken.task is None:
            return False
        limit = self.driver.app.max_deaths
        if taken.task.deaths > limit:
            reason = taken.task.reason or f"{limit} invocations in a row ended without progress"
            stopped = halt(self.record, self.now(), reason)
            if stopped is not None and await self.driver.writer.write([(self.record, stopped)]) is None:
                self.driver.tell("halted", self.id, reason=reason)
            return False
        return await self._take([(self.record, taken), *overdue], None)

    async def readmit(self, inbox: tuple[str, ...], start: int, overdue: list[Change], *, suspended: bool) -> None:
        """Move to the next epoch, to deliver what was seen while running or at a refused suspend (P2.2)."""
        again = acquire(
            self.record, self.now(), self._holder, self.driver.lease, inbox, start, progressed=True, again=True
        )
        fence = None if suspended else self.fence()
        if again is None or not await self._take([(self.record, again), *overdue], fence):
            raise LeaseLost(self.id)

    async def _take(self, changes: list[Change], fence: Fence | None) -> bool:
        changes[0] = (self.record, self._trimmed(changes[0][1]))
        written = await self.driver.writer.commit(changes, fence=fence, covered=self._covered(), hand=self._hand)
        if isinstance(written, Refused):
            return False
        self._adopt(written)
        return True

    def _covered(self) -> tuple[str, ...]:
        return (self.id,) if self.now() < self._held_until else ()

    def _trimmed(self, changed: Entity, more: int = 0) -> Entity:
        """Without the segments that folds have taken the place of, or do with this write."""
        folded = self.folded + more
        if not folded or not isinstance(changed, Record) or changed.task is None:
            return changed
        segments = trimmed(changed.task.segments, folded)
        return changed._replace(task=changed.task._replace(segments=segments))

    def _adopt(self, written: Written) -> None:
        record = written.entities[0]
        assert isinstance(record, Record)
        self._hold(record)

    async def write(
        self,
        changed: Record | None,
        *,
        deletes: tuple[str, ...] = (),
        guards: tuple[Guard, ...] = (),
        keep: str | None = None,
        folding: Folding | None = None,
    ) -> bool:
        """Write the task's record; False when a guard did not hold. `keep` is a wake-up not to be taken back yet, and
        `folding` a fold that is written with it.

        `changed` comes from a transition that re-checked its own condition; None means that it did not hold.

        Raises:
            LeaseLost: the task is no longer ours.
        """
        await self.stop_beat()
        fold: list[Change] = []
        if folding is not None:
            fold = [(None, folding.record)]
            deletes = (*deletes, *folding.gone)
        for _ in range(3):
            if changed is None:
                break
            written = await self.driver.writer.commit(
                [(self.record, self._trimmed(changed, 0 if folding is None else folding.size)), *fold],
                fence=self.fence(),
                deletes=deletes,
                guards=guards,
                hand=keep or self._hand,
            )
            if isinstance(written, Written):
                self._adopt(written)
                return True
            if not written.fenced and written.found.get(self.id) is None:
                return False
            current = self._current(written)
            if current is None:
                break
            # Somebody touched the record without taking the task (a listener): keep what they wrote.
            changed = changed._replace(callbacks=current.callbacks, listeners=current.listeners)
            self._hold(current)
        raise LeaseLost(self.id)

    async def release(self, retry_at: int, folding: Folding | None = None, planned: Plan | None = None) -> None:
        """Let go, due again at `retry_at` (milliseconds)."""
        await self.write(release(self.record, self.now(), self.task.version, retry_at, planned), folding=folding)
        self.driver.tell("released", self.id)

    async def halt(self, reason: str) -> None:
        """Stop the run visibly until a person continues it."""
        await self.write(halt(self.record, self.now(), self.driver.codec.seal(reason)))
        self.driver.tell("halted", self.id, reason=reason)

    async def put_off(self, reason: str) -> None:
        """Something outside the run is missing (code, a key): try again later, and halt in the end."""
        deaths = self.task.deaths + 1
        if deaths > self.driver.app.max_deaths:
            await self.halt(reason)
            return
        delay = min(1000 * 2**deaths, 600_000)
        later = release(self.record, self.now(), self.task.version, self.now() + delay)
        if later is not None and later.task is not None:
            later = later._replace(task=later.task._replace(deaths=deaths, reason=self.driver.codec.seal(reason)))
        await self.write(later)
        self.driver.tell("put off", self.id, reason=reason, delay=delay)

    async def look(self) -> None:
        """Look whether the task is ours still, before a write into another origin, which no fence can reach.

        Where every write of a step was fenced it is known already. Where it was not, somebody may have taken over
        while a completion was on its way, and what the body asks for next is asked by no history that survives (P2.2,
        F1). Raises LeaseLost.
        """
        if not self.driver.store.single_writer:
            row = (await self.driver.store.load([self.id])).get(self.id)
            if row is None or row.lease != self.task.version:
                raise LeaseLost(self.id)

    def keep_alive(self) -> None:
        """Renew the lease while steps run, where the platform does not bound an invocation."""
        if self.driver.heartbeat and self._beat is None:
            self._beat = asyncio.ensure_future(self._beats())

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(self.driver.lease / 3000)
            try:
                if not await self._renew():
                    return
            except PlatformError:
                pass  # the next beat tries again

    def ending(self) -> bool:
        """Whether others may take the task over by now, or soon: a holder stops delivering before that (P2.4)."""
        return self.driver.clock.now() >= self._stops_at

    async def renew(self) -> None:
        """Extend the lease. Who has read the task before this and takes it after is refused. Raises LeaseLost."""
        if not await self._renew():
            raise LeaseLost(self.id)

    async def _renew(self) -> bool:
        for _ in range(3):
            longer = heartbeat(self.record, self.now(), self.task.version)
            if longer is None:
                return False
            written = await self.driver.writer.commit(
                [(self.record, self._trimmed(longer))], fence=self.fence(), covered=self._covered(), hand=self._hand
            )
            if isinstance(written, Written):
                self._adopt(written)
                return True
            current = self._current(written)
            if current is None:
                return False
            self._hold(current)
        return False

    def _current(self, refused: Refused) -> Record | None:
        """The record as it stands, if somebody touched it without taking the task."""
        row = refused.found.get(self.id)
        if refused.fenced or row is None:
            return None
        current = from_row(row)
        held = current.task is not None and current.task.version == self.task.version
        return current if held and current.state is State.PENDING else None

    async def stop_beat(self) -> None:
        """No renewal is under way when this returns."""
        if self._beat is not None:
            beat, self._beat = self._beat, None
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)
