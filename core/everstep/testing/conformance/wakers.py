"""What every waker must do: deliver durably and at least once, not before the instant, and now when told to.

A rig holds the waker, a store for wakers whose alarm clock is the store itself, and a way to let time pass. Time may be
virtual or real; the suite only asks what was delivered up to an instant.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from everstep.ports import Put, Store, Wake, Waker

from .rows import STRANGE_IDS, commit, row
from .running import case

MINUTE = 60_000
DAY = 24 * 60 * MINUTE


class Rig(Protocol):
    """A waker under test and its world."""

    @property
    def waker(self) -> Waker: ...

    @property
    def store(self) -> Store: ...

    def now(self) -> int:
        """The rig's clock, in milliseconds."""
        ...

    async def advance(self, to: int) -> list[Wake]:
        """Let time pass until `to` and return what was delivered meanwhile, in order.

        A delivery counts as handled; where the alarm clock is the row, the rig takes its `due` away.
        """
        ...

    async def close(self) -> None: ...


class WakerSuite:
    """Subclass and implement `open`.

    Attributes:
        horizon: how far ahead a wake-up must be possible, in milliseconds; a platform with a shorter limit hops.
        early: by how much the platform may wake early, in milliseconds.
        versions: False where what is sent names the record alone, and carries version 0.
        late: by how much a delivery may be late on the rig's clock, in milliseconds.
    """

    horizon = 400 * DAY
    early = 0
    late = 0
    versions = True

    async def open(self) -> Rig:
        """A fresh rig with nothing armed."""
        raise NotImplementedError

    def _sent(self, wakes: Iterable[Wake]) -> set[Wake]:
        return {wake if self.versions else Wake(wake.id) for wake in wakes}

    async def plan(self, rig: Rig, wake: Wake, at: int) -> str | None:
        """Arm as the driver does (rule W2): arm first, then commit the row that is due at that instant."""
        token = await rig.waker.arm(wake, at)
        if rig.waker.by_row:
            assert await rig.store.commit(commit(Put(row(wake.id, due=at), 0))) is None
        return token

    @case
    async def test_delivers_at_the_instant_and_not_before(self, rig: Rig) -> None:
        at = rig.now() + MINUTE
        await self.plan(rig, Wake("a", 3), at)
        assert await rig.advance(at - 1 - self.early) == []
        assert {wake.id for wake in await rig.advance(at + self.late)} == {"a"}

    @case
    async def test_delivers_what_is_armed_in_the_past_at_once(self, rig: Rig) -> None:
        await self.plan(rig, Wake("a"), rig.now() - DAY)
        assert {wake.id for wake in await rig.advance(rig.now() + self.late)} == {"a"}

    @case
    async def test_delivers_each_at_its_own_instant_however_armed(self, rig: Rig) -> None:
        start = rig.now()
        for minutes in (30, 10, 20):
            await self.plan(rig, Wake(f"m{minutes}"), start + minutes * MINUTE)
        for minutes in (10, 20, 30):
            delivered = await rig.advance(start + minutes * MINUTE + self.late)
            assert {wake.id for wake in delivered} == {f"m{minutes}"}

    @case
    async def test_delivers_at_the_horizon(self, rig: Rig) -> None:
        at = rig.now() + self.horizon
        await self.plan(rig, Wake("far"), at)
        assert await rig.advance(at - 1 - self.early) == []
        assert {wake.id for wake in await rig.advance(at + self.late)} == {"far"}

    @case
    async def test_sends_now(self, rig: Rig) -> None:
        await rig.waker.send(Wake("a", 7))
        assert set(await rig.advance(rig.now() + self.late)) == self._sent([Wake("a", 7)])

    @case
    async def test_sends_each_wake_up(self, rig: Rig) -> None:
        wakes = [Wake("a", 1), Wake("a", 2), Wake("b", 1)]
        for wake in wakes:
            await rig.waker.send(wake)
        assert set(await rig.advance(rig.now() + self.late)) == self._sent(wakes)

    @case
    async def test_delivers_to_the_id_that_was_armed(self, rig: Rig) -> None:
        """Rule I2: one escaping, whatever the platform's names allow."""
        for id in STRANGE_IDS:
            await rig.waker.send(Wake(id, 1))
            await self.plan(rig, Wake(id, 1), rig.now())
        assert {wake.id for wake in await rig.advance(rig.now() + self.late)} == set(STRANGE_IDS)

    @case
    async def test_a_disarmed_wake_up_stays_away(self, rig: Rig) -> None:
        if rig.waker.by_row:
            return
        at = rig.now() + MINUTE
        token = await rig.waker.arm(Wake("a"), at)
        await self.plan(rig, Wake("b"), at)
        if token is not None:
            await rig.waker.disarm(token)
            assert {wake.id for wake in await rig.advance(at + self.late)} == {"b"}

    @case
    async def test_disarming_late_twice_or_nothing_is_harmless(self, rig: Rig) -> None:
        at = rig.now() + MINUTE
        token = await self.plan(rig, Wake("a"), at)
        assert {wake.id for wake in await rig.advance(at + self.late)} == {"a"}
        for old in (token or "gone", token or "gone"):
            await rig.waker.disarm(old)
        await self.plan(rig, Wake("b"), at + MINUTE)
        assert {wake.id for wake in await rig.advance(at + MINUTE + self.late)} == {"b"}

    @case
    async def test_by_row_arms_with_the_commit_alone(self, rig: Rig) -> None:
        """Rule W1: where the row is the alarm clock, a wake-up exists though nobody armed it in this process."""
        if not rig.waker.by_row:
            return
        at = rig.now() + MINUTE
        assert await rig.store.commit(commit(Put(row("a", due=at), 0))) is None
        assert await rig.advance(at - 1) == []
        assert {wake.id for wake in await rig.advance(at + self.late)} == {"a"}
