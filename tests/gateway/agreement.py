"""The same random requests to the memory oracle and to another store: every answer equal, status included, every
message, and everything a client could see.

Long runs are cut into parts, each on an empty store and from a seed of its own: a search costs what the store holds.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable

from everstep.clock import VirtualClock
from everstep.ports import Store
from everstep.stores.memory import MemoryStore

from .requests import Requests
from .servers import Server

SEED = int(os.environ.get("EVERSTEP_AGREEMENT_SEED", "1"))
PART = 5_000

Met = Counter[tuple[str, int]]


def wanted(default: int) -> int:
    """How many requests to make: what EVERSTEP_AGREEMENT_REQUESTS says, `make soak` for one."""
    return int(os.environ.get("EVERSTEP_AGREEMENT_REQUESTS") or default)


async def compare(other: Store, *, queue: bool, requests: int, seed: int) -> Met:
    """Ask both the same. Returns how often each kind was answered with each status."""
    clock = VirtualClock(1_000_000)
    servers = Server(MemoryStore(), clock, queue=queue), Server(other, clock, queue=queue)
    rng = random.Random(seed)
    making = Requests(rng)
    met: Met = Counter()
    for number in range(requests):
        envelope = making.next(clock.now())
        expected, got = [await server.ask(envelope) for server in servers]
        assert got == expected, f"request {number} of seed {seed}: {envelope}\n{got}\n{expected}"
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


def parts(requests: int, seed: int = SEED, most: int = PART) -> list[tuple[int, int]]:
    """A run as parts: a seed and a number of requests each."""
    whole, rest = divmod(requests, most)
    sizes = [most] * whole + [rest] * (rest > 0)
    return [(seed + number, size) for number, size in enumerate(sizes)]


def agree(fresh: Callable[[], Store], *, queue: bool, requests: int, seed: int = SEED) -> Met:
    """Compare part by part; `fresh` makes an empty store for each, which is closed after it."""

    async def play(seed: int, requests: int) -> Met:
        store = fresh()
        try:
            return await compare(store, queue=queue, requests=requests, seed=seed)
        finally:
            await store.close()

    met: Met = Counter()
    began = time.monotonic()
    for one, size in parts(requests, seed):
        met += asyncio.run(play(one, size))
        if requests > PART:
            print(f"{met.total()} requests agree after {time.monotonic() - began:.0f} s", flush=True)
    return met
