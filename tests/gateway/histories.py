"""Eight clients at once on one store: what each asked and was answered, recorded and checked history by history."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Collection, Sequence
from typing import Any

from everstep.clock import VirtualClock
from everstep.ports import Commit, Due, Page, Query, Refused, Store
from everstep.promise import SCHEDULE_PREFIX, Kind
from everstep.rows import Row, from_row, schedule_from

from . import linear
from .linear import Operation
from .requests import Requests
from .servers import Server

HISTORIES = int(os.environ.get("EVERSTEP_HISTORIES", "60"))
SEED = int(os.environ.get("EVERSTEP_HISTORIES_SEED", "1"))
CLIENTS = 8
EACH = 3


class Slow:
    """A store whose requests take turns as a seed has it, so that others come in between."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self._store = store
        self._rng = rng

    async def _pause(self) -> None:
        for _ in range(self._rng.choice((0, 0, 1, 1, 2, 5))):
            await asyncio.sleep(0)

    @property
    def single_writer(self) -> bool:
        return self._store.single_writer

    @property
    def folds(self) -> bool:
        return self._store.folds

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        await self._pause()
        found = await self._store.load(ids)
        await self._pause()
        return found

    async def branch(self, id: str) -> list[Row]:
        await self._pause()
        found = await self._store.branch(id)
        await self._pause()
        return found

    async def commit(self, commit: Commit) -> Refused | None:
        await self._pause()
        refused = await self._store.commit(commit)
        await self._pause()
        return refused

    async def due(self, now: int, limit: int) -> list[Due]:
        return await self._store.due(now, limit)

    async def find(self, query: Query) -> Page:
        return await self._store.find(query)

    async def delete(self, origin: str) -> int:
        return await self._store.delete(origin)

    async def close(self) -> None:
        await self._store.close()


class NotLinearizable(AssertionError):
    """A history that has no order; the message holds it."""


async def histories(
    store: Store, *, queue: bool, count: int = HISTORIES, seed: int = SEED, only: Collection[str] = ()
) -> int:
    """Record histories and check each. Returns how many operations overlapped. Raises NotLinearizable."""
    rng = random.Random(seed)
    clock = VirtualClock(1_000_000)
    server = Server(Slow(store, rng), clock, queue=queue)
    making = Requests(rng, search=False, only=only, generation=4 * CLIENTS * EACH)
    seen: dict[str, None] = {}
    moments = 0
    overlapping = 0

    async def client(history: list[Operation], envelopes: list[dict[str, Any]]) -> None:
        nonlocal moments
        for envelope in envelopes:
            moments += 1
            called = moments
            said = await server.ask(envelope)
            moments += 1
            making.learn(said)
            history.append(Operation(called, moments, envelope, said))

    for number in range(count):
        now = clock.now()
        asked = [[making.next(now) for _ in range(EACH)] for _ in range(CLIENTS)]
        seen.update((id, None) for envelopes in asked for envelope in envelopes for id in ids_in(envelope))
        start = await state_of(store, list(seen))
        history: list[Operation] = []
        await asyncio.gather(server.work(), *[client(history, envelopes) for envelopes in asked])
        overlapping += sum(one.returned > one.called + 1 for one in history)
        if queue:
            clock.advance(server.service.config.settle_delay)
        await server.work()
        end = linear.shown(await state_of(store, list(seen)), clock.now())
        verdict = linear.check(start, history, now, end, clock.now())
        if not verdict.ok:
            lines = "\n".join(
                f"{one.called:4}-{one.returned:4} {dict(one.request)} -> {dict(one.answer)}" for one in history
            )
            raise NotLinearizable(f"history {number} of seed {seed} at {now}: {verdict}\n{lines}")
        clock.advance(rng.choice((0, 1, 200, 500, 4000)))
        await server.work()
    return overlapping


def ids_in(value: Any) -> list[str]:
    """Every id an envelope names."""
    if isinstance(value, list):
        return [id for one in value for id in ids_in(one)]
    if not isinstance(value, dict):
        return []
    own = [value[name] for name in ("id", "awaited", "awaiter") if isinstance(value.get(name), str)]
    return own + [id for one in value.values() for id in ids_in(one)]


async def state_of(store: Store, ids: list[str]) -> linear.State:
    rows = await store.load([*ids, *[SCHEDULE_PREFIX + id for id in ("s1", "s2")]])
    return linear.begin(
        {id: schedule_from(row) if row.kind == Kind.SCHEDULE else from_row(row) for id, row in rows.items()}
    )


def run(store: Store, *, queue: bool, count: int = HISTORIES, seed: int = SEED, only: Collection[str] = ()) -> int:
    async def play() -> int:
        try:
            return await histories(store, queue=queue, count=count, seed=seed, only=only)
        finally:
            await store.close()

    return asyncio.run(play())
