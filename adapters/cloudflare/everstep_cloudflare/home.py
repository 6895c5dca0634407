"""One origin at home: its rows, its alarm, and what the index knows of it.

Theory. The alarm is set in the transaction of the rows it belongs to (rule W9), so that a state and its wake-up are one
write. While `alarm()` itself runs nothing is set: should this process die, the platform runs that alarm again, so it
stands for everything here until it ends, and it ends by setting the next one. (Had it set one before, only that one
would run again.) Two things never happen: a row that is due with neither an alarm set nor one running, and two alarms
written for one step of a run.

The index is told before a commit of whatever makes this origin live or due earlier than it knows (rule W9), and after
one of what ended. So it errs on one side only: what it does not list is settled. A mark kept beside the rows says what
it knows, so that most commits tell it nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from everstep.clock import Clock
from everstep.errors import EverstepError, OutcomeUnknown, StoreError, StoreUnavailable
from everstep.ports import Commit, Due, Refused
from everstep.promise import Kind, State

from .rows import Rows, Storage

Tell = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Tells the index an entry; durable when it returns. Raises StoreError."""

_PENDING = State.PENDING.value
_LATE = 1_000
"""Milliseconds after which an alarm that was set and has not come is taken to be lost, and is set again."""
_FIRST = 2
"""Milliseconds added to the first alarm that is set by a life which an alarm began: an earlier one may have set that
for the same instant, or for one later."""


class Mark(NamedTuple):
    """What the index knows: whether anything here is unsettled, and an instant before which nothing here is due."""

    live: bool = False
    bound: int | None = None
    seq: int = 0

    def covers(self, due: int | None) -> bool:
        return self.live and (due is None or (self.bound is not None and self.bound <= due))


class Home:
    """The rows of the origin that an object is the home of.

    Args:
        tell: tells the index.
        poke: is called when something may have fallen due while an alarm runs.
    """

    def __init__(self, storage: Storage, origin: str, clock: Clock, tell: Tell, poke: Callable[[], None]) -> None:
        self.origin = origin
        self._storage = storage
        self._clock = clock
        self._tell = tell
        self._poke = poke
        self._armed: int | None = None
        self._last: int | None = None
        self._awake = self._awoken = False
        self._deleting = 0
        self._seq = 0
        self._claims: dict[int, Mark] = {}
        self._open()

    def _open(self) -> None:
        self.rows = Rows(self._storage)
        found = self.rows.home()
        self._mark = Mark(bool(found[1]), found[2], found[3]) if found else Mark()
        self._seq = max(self._seq, self._mark.seq)

    # Commits.

    async def commit(self, commit: Commit) -> Refused | None:
        """As `Store.commit`, of this origin. Raises StoreError."""
        if commit.origin != self.origin:
            raise StoreError(f"the object of {self.origin!r} holds nothing of {commit.origin!r}")
        if self._deleting:
            raise StoreUnavailable(f"{self.origin!r} is being deleted; try again")
        earliest = min([put.row.due for put in commit.puts if put.row.due is not None], default=None)
        pending = any(put.row.state == _PENDING for put in commit.puts)
        claim: Mark | None = None
        try:
            while (pending or earliest is not None or not self._mark.seq) and not self._mark.covers(earliest):
                claim = self._claimed(earliest)
                await self._tell(self._entry(claim, commit))
                if self._mark.seq <= claim.seq:
                    break
                self._claims.pop(claim.seq)
                claim = None  # others went on meanwhile: this is old news
            return await self._commit(commit, earliest, pending, claim)
        finally:
            if claim is not None:
                self._claims.pop(claim.seq)

    async def _commit(self, commit: Commit, earliest: int | None, pending: bool, claim: Mark | None) -> Refused | None:
        refused: list[Refused | None] = [None]
        before = self._mark

        def body() -> None:
            refused[0] = self.rows.apply(commit)
            if refused[0] is not None:
                return
            if not pending and earliest is None and self._over():
                if self._mark.live or claim is not None:
                    self._note(Mark(False, None, self._next_seq()))
            elif claim is not None:
                self._note(claim)
            if not self._awake and earliest is not None:
                self._arm(self.rows.next_due())

        try:
            self._storage.transaction(body)
        except BaseException:
            self._mark, self._armed = before, None
            raise
        try:
            await self._storage.flush()
        except StoreError as error:
            self._armed = None
            raise OutcomeUnknown(f"{self.origin}: {error}") from error
        if refused[0] is not None:
            return refused[0]
        if not self._mark.live and (before.live or claim is not None or _touches(commit, self.origin)):
            await self._tell_quietly()
        if earliest is not None:
            self._poke()
        return None

    def _claimed(self, due: int | None) -> Mark:
        """A mark that covers what is about to be written, by this commit and by others that the index was told of."""
        told = [claim.bound for claim in self._claims.values()]
        bounds = [at for at in (self._mark.bound if self._mark.live else None, due, *told) if at is not None]
        claim = Mark(True, min(bounds, default=None), self._next_seq())
        self._claims[claim.seq] = claim
        return claim

    def _next_seq(self) -> int:
        """Tells news from old news, also after everything here was deleted."""
        self._seq = max(self._seq + 1, self._clock.now())
        return self._seq

    def _note(self, mark: Mark) -> None:
        self.rows.put_home(self.origin, *mark)
        self._mark = mark

    def _over(self) -> bool:
        """Whether nothing here is left to do. While the root is pending, as at every step, no other row is read."""
        return not self.rows.root_pending(self.origin) and not self.rows.live()

    def _entry(self, mark: Mark, commit: Commit | None = None) -> dict[str, Any]:
        root = next((put.row for put in commit.puts if put.row.id == self.origin), None) if commit else None
        root = root if root is not None else self.rows.root(self.origin)
        return {
            "origin": self.origin,
            "live": mark.live,
            "bound": mark.bound,
            "seq": mark.seq,
            "schedule": root is not None and root.kind == Kind.SCHEDULE,
            "state": None if root is None else root.state,
            "settled_at": None if root is None else root.settled_at,
        }

    async def _tell_quietly(self) -> None:
        """The index errs on the safe side until the next sweep asks."""
        try:
            await self._tell(self._entry(self._mark))
        except EverstepError:
            pass

    # The alarm.

    def _arm(self, at: int | None) -> None:
        """See to it that the alarm comes by `at`. One that comes earlier is harmless, and costs less than a change.

        It is never set to the instant that it was set to last, as it would be where it comes a little early or was
        lost: to the platform that is no change, so that it asks nobody to ring. A few milliseconds later it is one.
        """
        now = self._clock.now()
        lost = self._armed is not None and self._armed < now - _LATE
        if at is not None and (self._armed is None or lost or at < self._armed):
            if at == self._last or (self._awoken and self._last is None and at < now + _LATE):
                at += 1 if self._last is not None else _FIRST
            self._storage.set_alarm(at)
            self._armed = self._last = at

    def wake_up(self) -> None:
        """`alarm()` begins: from now on it stands for everything that is due here."""
        self._awake = True
        self._armed, self._awoken = None, True

    async def guard(self, at: int) -> None:
        """Set an alarm while awake: this one has died before, and the platform does not try for ever."""
        self._armed = None
        self._storage.transaction(lambda: self._arm(at))
        await self._storage.flush()

    async def fall_asleep(self, at: int | None) -> None:
        """`alarm()` ends: see to it that the object is woken at `at`. Raises StoreError, for the platform to repeat."""
        self._awake = False
        if at is not None and self._armed != at:
            self._armed = None
            self._storage.transaction(lambda: self._arm(at))
            await self._storage.flush()

    async def look(self, now: int, limit: int) -> tuple[list[Due], dict[str, Any]]:
        """What is due, and what the index should know of this origin; restores an alarm that was lost."""
        if not self._awake:
            armed, asked = self._armed, await self._storage.alarm()
            if not self._awake and self._armed == armed:  # else it has rung meanwhile
                self._armed = self._last = asked
        at = self.rows.next_due()

        def body() -> None:
            truth = (self.rows.live(), at)
            if self.rows.exist and truth != self._mark[:2]:
                self._note(Mark(*truth, self._next_seq()))
            if not self._awake:
                self._arm(at)

        self._storage.transaction(body)
        await self._storage.flush()
        self._poke()
        return self.rows.due(now, limit), self._entry(self._mark)

    async def ring(self) -> None:
        """Look now at whatever is due, or was sent."""
        if self._awake:
            self._poke()
            return
        self._storage.transaction(lambda: self._arm(self._clock.now()))
        await self._storage.flush()

    async def delete(self) -> int:
        """Remove every row; the index forgets this origin last. Raises StoreError."""
        self._deleting += 1
        try:
            count = self.rows.count()
            await self._storage.delete_all()
            self._armed = None
            self._open()
            await self._tell({"origin": self.origin, "gone": True, "seq": self._next_seq()})
        finally:
            self._deleting -= 1
        return count


def _touches(commit: Commit, id: str) -> bool:
    return id in commit.deletes or any(put.row.id == id for put in commit.puts)
