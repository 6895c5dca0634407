"""The embedded waker against the suite that every waker must pass."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from everstep.clock import VirtualClock
from everstep.ports import Put, Store, Wake
from everstep.stores import open_store
from everstep.testing.conformance import Rig, WakerSuite
from everstep.testing.conformance.rows import commit
from everstep.wakers.local import LocalWaker


class LocalRig:
    """A loop in miniature: what was sent, then what the store says is due."""

    def __init__(self, store: Store) -> None:
        self.waker = LocalWaker()
        self.store = store
        self.clock = VirtualClock()

    def now(self) -> int:
        return self.clock.now()

    async def advance(self, to: int) -> list[Wake]:
        delivered = []
        while True:
            at = self.waker.next_at()
            self.clock.set(max(self.now(), min(to, at if at is not None else to)))
            delivered += self.waker.take(self.now())
            delivered += await self._due()
            if self.now() >= to:
                return delivered

    async def close(self) -> None:
        await self.store.close()

    async def _due(self) -> list[Wake]:
        due = await self.store.due(self.now(), 1000)
        for id, standing in (await self.store.load([entry.id for entry in due])).items():
            await self.store.commit(commit(Put(standing._replace(rev=standing.rev + 1, due=None), standing.rev)))
            assert id == standing.id
        return [Wake(entry.id) for entry in due]


class TestLocalOverMemory(WakerSuite):
    async def open(self) -> Rig:
        return LocalRig(open_store("memory:"))


class TestLocalOverSqlite(WakerSuite):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path / 'everstep.db'}?synchronous=normal"

    async def open(self) -> Rig:
        return LocalRig(open_store(self.url))


def test_a_sleeping_loop_is_poked_by_a_send_and_by_an_earlier_alarm_only() -> None:
    async def scenario() -> list[object]:
        waker = LocalWaker()
        await waker.arm(Wake("far"), 1000)
        seen: list[object] = [waker.take(0), waker.next_at(), await waker.wait(0)]
        await waker.arm(Wake("farther"), 2000)
        seen.append(await waker.wait(0))
        await waker.arm(Wake("near"), 500)
        seen += [await waker.wait(0), waker.next_at(), waker.take(500), waker.next_at()]
        waiting = asyncio.create_task(waker.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        await waker.send(Wake("now", 3))
        seen += [await waiting, waker.take(500), waker.take(500), await waker.wait(0)]
        return seen

    assert asyncio.run(scenario()) == [
        [], 1000, False,
        False,
        True, 500, [], 1000,
        True, [Wake("now", 3)], [], False,
    ]  # fmt: skip
