"""The store, the waker and the objects on a stand-in for the platform's storage: seconds instead of minutes.

Evidence is workerd (`test_conformance.py`); this is for working on it.
"""

from __future__ import annotations

import asyncio
import random

from everstep.clock import VirtualClock
from everstep.ports import Store, Wake
from everstep.registry import App
from everstep.stores.memory import MemoryStore
from everstep.testing.conformance import HandlerSuite, StoreSuite
from everstep.testing.conformance.differential import compare
from everstep.testing.conformance.handlers import Rig, Work
from everstep_cloudflare.objects import Options, client_of
from everstep_cloudflare.peers import Peers
from everstep_cloudflare.store import DurableObjectStore

from .fake import FakeWorld


class TestStore(StoreSuite):
    async def open(self) -> Store:
        return DurableObjectStore(Peers(FakeWorld(App("quick"), Options(clock=VirtualClock()))))


class WorldRig:
    """Objects whose alarms are rung on virtual time."""

    def __init__(self, work: Work, steps: int | None) -> None:
        self.clock = VirtualClock()
        self.world = FakeWorld(work.app, Options(clock=self.clock, steps_per_invocation=steps))
        self.client = client_of(work.app, self.world, clock=self.clock)
        self.away = False

    async def deliver(self, wake: Wake) -> bool:
        if self.away:
            return False
        await self.client.waker.send(wake)
        await self.advance(0)
        return True

    async def advance(self, seconds: float) -> None:
        until = self.clock.now() + round(seconds * 1000)
        while (found := self.world.next_alarm()) is not None and found[0] <= until:
            self.clock.set(max(self.clock.now(), found[0]))
            await self.world.ring(found[1])
        self.clock.set(until)

    def broken(self, broken: bool) -> None:
        self.away = broken

    async def close(self) -> None:
        await self.client.close()


class TestUntilBlocked(HandlerSuite):
    by_row = True

    async def rig(self, work: Work) -> Rig:
        return WorldRig(work, None)


class TestStepByStep(HandlerSuite):
    by_row = True

    async def rig(self, work: Work) -> Rig:
        return WorldRig(work, 1)


def test_it_agrees_with_the_memory_store() -> None:
    async def scenario() -> None:
        store = DurableObjectStore(Peers(FakeWorld(App("quick"), Options(clock=VirtualClock()))))
        await compare(MemoryStore(), store, random.Random(5), quiet_rounds=200, most_rounds=1500)

    asyncio.run(scenario())
