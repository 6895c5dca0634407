"""The driver, as the embedded loop and as a queue call it, against the suite that every handler must pass."""

from __future__ import annotations

import pytest

from everstep.client import Client
from everstep.clock import VirtualClock
from everstep.driver import Done, Driver
from everstep.errors import StoreError, StoreUnavailable
from everstep.ports import Commit, Due, Page, Query, Refused, Row, Store, Wake
from everstep.stores.memory import MemoryStore
from everstep.testing import conformance
from everstep.testing.conformance.handlers import HandlerSuite, Rig, Work
from everstep.wakers.local import LocalWaker


class Away:
    """A store that can be out of reach."""

    single_writer = True
    folds = True

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.away = False

    def _there(self) -> Store:
        if self.away:
            raise StoreUnavailable("out of reach")
        return self.store

    async def load(self, ids: list[str]) -> dict[str, Row]:
        return await self._there().load(ids)

    async def branch(self, id: str) -> list[Row]:
        return await self._there().branch(id)

    async def commit(self, commit: Commit) -> Refused | None:
        return await self._there().commit(commit)

    async def due(self, now: int, limit: int) -> list[Due]:
        return await self._there().due(now, limit)

    async def find(self, query: Query) -> Page:
        return await self._there().find(query)

    async def delete(self, origin: str) -> int:
        return await self._there().delete(origin)

    async def close(self) -> None:
        await self.store.close()


class LoopRig:
    """The embedded loop in miniature: what is due is delivered, and a refused delivery comes again."""

    def __init__(self, work: Work, steps: int | None) -> None:
        self.store = Away()
        self.clock = VirtualClock()
        self.waker = LocalWaker()
        self.client = Client(self.store, self.waker, app=work.app, clock=self.clock)
        self.driver = Driver(
            work.app, self.store, self.waker, self.clock, service=self.client.service, steps_per_invocation=steps
        )

    async def deliver(self, wake: Wake) -> bool:
        try:
            return isinstance(await self.driver.deliver(wake), Done)
        except StoreError:
            return False

    async def advance(self, seconds: float) -> None:
        until = self.clock.now() + round(seconds * 1000)
        while due := await self.store.due(until, 1):
            self.clock.set(max(self.clock.now(), due[0].due))
            await self.deliver(Wake(due[0].id))
        self.clock.set(until)

    def broken(self, broken: bool) -> None:
        self.store.away = broken

    async def close(self) -> None:
        await self.client.close()


class TestUntilBlocked(HandlerSuite):
    by_row = True

    async def rig(self, work: Work) -> Rig:
        return LoopRig(work, None)


class TestStepByStep(HandlerSuite):
    by_row = True

    async def rig(self, work: Work) -> Rig:
        return LoopRig(work, 1)


class Eager(LoopRig):
    async def deliver(self, wake: Wake) -> bool:
        """Broken: acknowledges whatever happens."""
        await super().deliver(wake)
        return True


def test_a_handler_that_acknowledges_what_is_not_durable_is_found_out() -> None:
    class Broken(HandlerSuite):
        async def rig(self, work: Work) -> Rig:
            return Eager(work, None)

    with pytest.raises(AssertionError):
        Broken().test_nothing_is_acknowledged_while_the_store_is_away()
    with pytest.raises(AssertionError):
        Broken().test_a_message_ahead_of_the_store_comes_back()
    assert "HandlerSuite" in conformance.__all__
