"""Many workers at one database: nothing is lost or done twice, and no late step slips past a take-over."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import psycopg
import pytest

from everstep import App, Client, Context
from everstep.clock import VirtualClock
from everstep.driver import Driver
from everstep.ports import Fence, Guard, Put, Refused, Wake
from everstep.promise import State
from everstep.stores import open_store
from everstep.testing.conformance.rows import commit, row, write
from everstep.wakers.local import LocalWaker
from everstep_supabase.store import PostgresStore

pytestmark = pytest.mark.xdist_group("postgres")


def test_forty_workers_lose_and_double_nothing(dsn: str) -> None:
    ran: Counter[str] = Counter()
    app = App("crowd")

    @app.step
    async def note(what: str) -> str:
        await asyncio.sleep(0)
        ran[what] += 1
        return what

    @app.workflow
    async def leaf(ctx: Context, name: str) -> int:
        await ctx.run(note, name)
        return 1

    @app.workflow
    async def tree(ctx: Context, name: str) -> int:
        await ctx.run(note, f"{name} first")
        found = await asyncio.gather(*[ctx.rpc(leaf, f"{name} {n}") for n in range(4)])
        await ctx.run(note, f"{name} last")
        return sum(found)

    runs = 12
    clock = VirtualClock()

    async def worker(number: int, rng: random.Random) -> None:
        store = open_store(f"{dsn}?pool=1")
        driver = Driver(app, store, LocalWaker(), clock, pid=f"w{number}")
        try:
            while due := await store.due(clock.now(), 20):
                await driver.deliver(Wake(rng.choice(due).id))
        finally:
            driver.cold()
            await store.close()

    async def scenario() -> list[object]:
        store = open_store(dsn)
        client = Client(store, LocalWaker(), app=app, clock=clock)
        handles = [await client.start("tree", f"t{n}", id=f"t{n}") for n in range(runs)]
        while any([await handle.status() == "pending" for handle in handles]):
            await asyncio.gather(*[worker(n, random.Random(n)) for n in range(40)])
            clock.advance(61_000)
        found = [await handle.result(0) for handle in handles]
        report = await client.verify()
        assert report.problems == []
        await client.close()
        return found

    assert asyncio.run(scenario()) == [4] * runs
    assert len(ran) == runs * 6
    assert set(ran.values()) == {1}


def test_a_step_and_a_take_over_wait_for_each_other(dsn: str) -> None:
    """Rule B4: whichever comes second sees the first one's commit, and decides on it."""
    step = commit(Put(row("a.1", state=State.RESOLVED.value), 0), fence=Fence("a", 1, soft=True))
    take = commit(Put(row("a", rev=2, lease=2), 1))

    async def scenario() -> None:
        store = open_store(dsn)
        await write(store, row("a", lease=1))
        async with await psycopg.AsyncConnection.connect(dsn) as first:
            await first.execute(
                "select from everstep.rows where id = 'a' for share"
            )  # the old holder's step, under way
            taking = asyncio.create_task(store.commit(take))
            assert not (await asyncio.wait([taking], timeout=0.3))[0]
            await first.commit()
            assert await taking is None
            await first.execute("update everstep.rows set rev = 3, lease = 3 where id = 'a'")  # another take-over
            writing = asyncio.create_task(store.commit(step._replace(fence=Fence("a", 2, soft=True))))
            assert not (await asyncio.wait([writing], timeout=0.3))[0]
            await first.commit()
            assert await writing == Refused(True, {})
        assert await store.load(["a.1"]) == {}
        await store.close()

    asyncio.run(scenario())


def test_two_that_each_ask_for_the_others_absence_do_not_both_get_it(dsn: str) -> None:
    async def scenario(store: PostgresStore, turn: int) -> None:
        here, there = f"s{turn}.1", f"s{turn}.2"
        answers = await asyncio.gather(
            store.commit(commit(Put(row(here), 0), guards=(Guard(there, 0),))),
            store.commit(commit(Put(row(there), 0), guards=(Guard(here, 0),))),
        )
        assert sum(answer is None for answer in answers) == 1, answers

    async def all_turns() -> None:
        store = open_store(dsn)
        assert isinstance(store, PostgresStore)
        for turn in range(25):
            await scenario(store, turn)
        await store.close()

    asyncio.run(all_turns())


def test_commits_of_several_rows_in_any_order_come_to_an_end(dsn: str) -> None:
    """Locks are taken in the order of ids; what the server ends as a deadlock nevertheless is sent again."""

    async def scenario() -> None:
        store = open_store(dsn)
        ids = [f"d.{n}" for n in range(6)]
        await write(store, *[row(id, value="0") for id in ids], row("d", lease=1))
        done = 0

        async def worker(rng: random.Random) -> None:
            nonlocal done
            for _ in range(15):
                while True:
                    chosen = rng.sample(ids, 3)
                    stand = await store.load(chosen)
                    puts = [
                        Put(
                            stand[id]._replace(rev=stand[id].rev + 1, value=str(int(stand[id].value or 0) + 1)),
                            stand[id].rev,
                        )
                        for id in chosen
                    ]
                    extra = rng.choice(((), (Put(row(f"d.new{rng.random()}"), 0),)))
                    if await store.commit(commit(*puts, *extra, fence=Fence("d", 1))) is None:
                        done += 1
                        break

        await asyncio.gather(*[worker(random.Random(n)) for n in range(8)])
        final = await store.load(ids)
        assert sum(int(one.value or 0) for one in final.values()) == 3 * done == 3 * 8 * 15
        await store.close()

    asyncio.run(scenario())
