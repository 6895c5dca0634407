"""Requests that wait for a promise share their looks at the store, which end with them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from everstep.http import waits
from everstep.http.waits import Waits

LONG = 3600.0


class Store:
    """What is settled, and what was asked for."""

    def __init__(self) -> None:
        self.settled: set[str] = set()
        self.asked: list[list[str]] = []
        self.looked = asyncio.Event()
        self.broken = False

    async def look(self, ids: Collection[str]) -> Collection[str]:
        self.asked.append(sorted(ids))
        self.looked.set()
        if self.broken:
            raise OSError
        return self.settled.intersection(ids)


def test_one_look_is_for_everybody_and_wakes_only_whom_it_found() -> None:
    async def play() -> None:
        store = Store()
        all = Waits(store.look)
        a, also_a, b = [asyncio.create_task(all.until(id, LONG)) for id in ("a", "a", "b")]
        await store.looked.wait()
        assert store.asked == [["a", "b"]]
        store.settled.add("a")
        await asyncio.wait_for(asyncio.gather(a, also_a), 10)
        assert not b.done()
        b.cancel()

    asyncio.run(play())


def test_a_kick_looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        store = Store()
        all = Waits(store.look)
        waiting = asyncio.create_task(all.until("a", LONG))
        await store.looked.wait()
        store.settled.add("a")
        all.kick()
        await asyncio.wait_for(waiting, 10)
        assert len(store.asked) == 2

    monkeypatch.setattr(waits, "_FIRST", LONG)  # without a kick the next look is an hour away
    monkeypatch.setattr(waits, "_LAST", LONG)
    asyncio.run(play())


def test_nobody_waits_and_nobody_looks() -> None:
    async def play() -> None:
        store = Store()
        all = Waits(store.look)
        await all.until("a", 0.01)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(play())


def test_a_look_that_fails_is_tried_again() -> None:
    async def play() -> None:
        store = Store()
        store.broken = True
        all = Waits(store.look)
        waiting = asyncio.create_task(all.until("a", LONG))
        await store.looked.wait()
        store.settled.add("a")
        store.broken = False
        await asyncio.wait_for(waiting, 10)

    asyncio.run(play())
