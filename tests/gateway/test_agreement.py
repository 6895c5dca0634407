"""Random requests, one after the other, on every store and on the memory oracle: every answer equal, status included,
and every message, and everything a client could see.

EVERSTEP_AGREEMENT_REQUESTS=100000 makes it long (`make soak` does), EVERSTEP_AGREEMENT_SEED starts elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from everstep.clock import VirtualClock
from everstep.ports import Commit, Refused, Store
from everstep.promise import Row
from everstep.stores.memory import MemoryStore
from everstep.stores.sqlite import SqliteStore
from tests.gateway.requests import Requests
from tests.gateway.servers import Server

REQUESTS = int(os.environ.get("EVERSTEP_AGREEMENT_REQUESTS", "3000"))
SEED = int(os.environ.get("EVERSTEP_AGREEMENT_SEED", "1"))


async def compare(other: Store, *, queue: bool, requests: int = REQUESTS, seed: int = SEED) -> Counter[tuple[str, int]]:
    """Ask both the same. Returns how often each kind was answered with each status."""
    clock = VirtualClock(1_000_000)
    servers = Server(MemoryStore(), clock, queue=queue), Server(other, clock, queue=queue)
    rng = random.Random(seed)
    making = Requests(rng)
    met: Counter[tuple[str, int]] = Counter()
    for number in range(requests):
        envelope = making.next(clock.now())
        expected, got = [await server.ask(envelope) for server in servers]
        assert got == expected, f"request {number} of seed {seed}: {envelope}"
        making.learn(expected)
        met[envelope["kind"], expected["head"]["status"]] += 1
        if rng.random() < 0.2:
            clock.advance(rng.choice((1, 50, 400, 1100, 6000)))
            for server in servers:
                await server.work()
            assert servers[1].sent == servers[0].sent, f"after request {number} of seed {seed}"
            for server in servers:
                server.sent.clear()
    return met


def agree(other: Store, *, queue: bool, requests: int = REQUESTS, seed: int = SEED) -> Counter[tuple[str, int]]:
    async def play() -> Counter[tuple[str, int]]:
        try:
            return await compare(other, queue=queue, requests=requests, seed=seed)
        finally:
            await other.close()

    return asyncio.run(play())


@pytest.mark.parametrize("queue", [False, True], ids=["rows", "queue"])
def test_sqlite_agrees_with_memory(tmp_path: Path, queue: bool) -> None:
    met = agree(SqliteStore(tmp_path / "everstep.db", synchronous="off"), queue=queue)

    assert len({kind for kind, _ in met}) == 21
    assert {status for _, status in met} == {200, 300, 400, 404, 409, 422}


def test_the_requests_reach_every_answer_of_every_kind() -> None:
    met = agree(MemoryStore(), queue=False, requests=12_000)

    assert {
        ("promise.register_callback", 422), ("promise.register_listener", 422), ("task.create", 409),
        ("task.create", 422), ("task.acquire", 200), ("task.acquire", 409), ("task.fence", 200), ("task.fence", 409),
        ("task.suspend", 200), ("task.suspend", 300), ("task.suspend", 422), ("task.suspend", 409),
        ("task.fulfill", 200), ("task.fulfill", 409), ("task.release", 200), ("task.halt", 200), ("task.halt", 409),
        ("task.continue", 200), ("task.continue", 409), ("schedule.create", 400), ("schedule.delete", 404),
    } <= set(met)  # fmt: skip


class LosesDeletes(MemoryStore):
    async def commit(self, commit: Commit) -> Refused | None:
        return await super().commit(commit._replace(deletes=()))


class WholePartitionForABranch(MemoryStore):
    async def branch(self, id: str) -> list[Row]:
        return [row._replace(branch=id) for row in self._rows.values() if row.id.startswith(id)]


class ReadsYesterday(MemoryStore):
    """Answers with what stood before the last write of a row, now and then."""

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        found: dict[str, Any] = await super().load(ids)
        return {id: row._replace(task=None) if row.rev % 17 == 16 else row for id, row in found.items()}


@pytest.mark.parametrize("broken", [LosesDeletes, WholePartitionForABranch, ReadsYesterday])
def test_a_broken_store_is_found_out(broken: type[MemoryStore]) -> None:
    with pytest.raises(AssertionError):
        agree(broken(), queue=False, requests=12_000)
