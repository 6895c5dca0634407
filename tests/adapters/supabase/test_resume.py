"""A resume is one round trip: the store acquires by the task's plan, as the core would have, and loads."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from everstep import App, Context, Retry
from everstep.clock import VirtualClock
from everstep.lifecycle import acquire
from everstep.ports import Claim
from everstep.promise import (
    TARGET,
    Payload,
    Plan,
    Record,
    Segment,
    State,
    Task,
    TaskState,
    due_at,
    from_row,
    to_row,
)
from everstep.stores import open_store
from everstep.stores.memory import MemoryStore
from everstep.testing.conformance.rows import row, write
from everstep_supabase.store import PostgresStore
from tests.adapters.supabase.sim import Platform

pytestmark = pytest.mark.xdist_group("postgres")

CLAIM = Claim("everstep://shop", "i1/k \"'\u2028", 60_000, 5_000)
SLEEPING = Task(
    TaskState.SUSPENDED,
    3,
    tree="a.2",
    timers=(("a.2", 4_000),),
    segments=(Segment(1, 0, (), 10), Segment(3, 4, ("a.1",), 20)),
    planned=Plan(7, ("a.2",), "everstep://shop"),
)
RECORD = Record(
    "a", State.PENDING, "root", "a", Payload('["f",[1]]'), tags={TARGET: "everstep://shop"}, task=SLEEPING, rev=5
)


def task(**changes: Any) -> Record:
    return RECORD._replace(task=SLEEPING._replace(**changes))


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        task(planned=Plan(0, (), "everstep://shop"), segments=()),
        task(generation=3, carried=Payload('["f",[2]]', {"key": "ü"})),
        RECORD._replace(timeout_at=30_000),
        RECORD._replace(timeout_at=300_000, callbacks=("b",), listeners=("c",)),
    ],
)
def test_a_claim_is_what_the_core_calls_an_acquisition(dsn: str, record: Record) -> None:
    assert record.task is not None
    assert record.task.planned is not None
    start, inbox, _ = record.task.planned
    expected = acquire(record, CLAIM.now, CLAIM.holder, CLAIM.ttl, inbox, start, progressed=True)
    assert expected is not None

    async def scenario() -> None:
        store = PostgresStore(dsn)
        children = [row("a.1", branch="a"), row("a.1.1", branch="a.1"), row("a.3", branch="a", value="\0")]
        await write(store, to_row(record), *children)
        found = await store.resume("a", CLAIM)
        assert found.claimed
        assert found.rows[0] == to_row(record)
        assert sorted(found.rows[1:]) == [children[0], children[2]]
        (stands,) = (await store.load(["a"])).values()
        assert from_row(stands) == expected._replace(rev=6)
        assert stands.due == due_at(expected)
        assert stands.lease == 4
        again = await store.resume("a", CLAIM._replace(holder="i2"))
        assert not again.claimed
        assert again.rows[0] == stands
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "record",
    [
        task(timers=(("a.2", 5_001),)),
        task(planned=None),
        task(planned=Plan(7, ("a.2",), "everstep://other")),
        task(state=TaskState.HALTED),
        task(state=TaskState.PENDING, retry_at=1),
        task(state=TaskState.ACQUIRED, expires_at=1),
        RECORD._replace(timeout_at=5_000),
        RECORD._replace(state=State.CANCELED, settled_at=3, callbacks=("b",)),
    ],
)
def test_what_is_not_planned_and_due_is_only_loaded(dsn: str, record: Record) -> None:
    async def scenario() -> None:
        store = PostgresStore(dsn)
        await write(store, to_row(record), row("a.1", branch="a"), row("a.2", branch="a"))
        found = await store.resume("a", CLAIM, ["a.2", "nobody"])
        assert found == ([to_row(record), row("a.2", branch="a")], False)
        assert await store.load(["a"]) == {"a": to_row(record)}
        assert await store.resume("nobody", CLAIM) == ([], False)
        await store.close()

    asyncio.run(scenario())


def test_of_many_claims_one_is_granted(dsn: str) -> None:
    async def scenario() -> None:
        store = PostgresStore(dsn)
        await write(store, to_row(RECORD))
        found = await asyncio.gather(*[store.resume("a", CLAIM._replace(holder=f"i{n}")) for n in range(8)])
        assert [one.claimed for one in found].count(True) == 1
        await store.close()

    asyncio.run(scenario())


ran: Counter[str] = Counter()
app = App("shop")


@app.step(retry=Retry(attempts=3, first=10, factor=1))
def note(what: str, failures: int = 0) -> str:
    ran[what] += 1
    if ran[what] <= failures:
        raise ValueError("not yet")
    return what


@app.workflow
async def countdown(ctx: Context, n: int) -> str:
    for left in range(n, 0, -1):
        await ctx.run(note, f"{ctx.id} {left}")
        await ctx.sleep(60)
    return "liftoff"


@app.workflow
async def long(ctx: Context, steps: int) -> int:
    for n in range(steps):
        await ctx.run(note, f"{ctx.id} {n}")
    await ctx.sleep(60)
    return steps


@app.workflow
async def stubborn(ctx: Context) -> str:
    return await ctx.run(note, f"{ctx.id} fails", 2)


@app.workflow
async def busy(ctx: Context) -> list[object]:
    """Something else arrives while it sleeps: the plan does not know of it, and nothing is lost."""
    link = ctx.promise()
    await ctx.sleep(60)
    return [await link, await ctx.run(note, f"{ctx.id} after")]


@pytest.mark.parametrize("cache", [64, 0], ids=["warm", "cold"])
def test_an_iteration_of_a_countdown_is_three_round_trips(dsn: str, cache: int) -> None:
    async def scenario() -> list[int]:
        platform = Platform(app, dsn, cache=cache)
        await platform.client.start(countdown, 5, id=f"c{cache}")
        calls = []
        for _ in range(6):
            before = platform.store.calls
            await platform.deliver(f"c{cache}")
            calls.append(platform.store.calls - before)
            platform.clock.advance(60_000)
        assert await platform.client.handle(f"c{cache}").result(0) == "liftoff"
        await platform.close()
        return calls

    # The first has no plan to go by, so that it loads, then acquires; the last has no step.
    assert asyncio.run(scenario()) == [4, 3, 3, 3, 3, 2]


@pytest.mark.parametrize("steps", [3, 700])
def test_a_resume_is_one_round_trip_whatever_the_history(dsn: str, steps: int) -> None:
    async def scenario() -> int:
        platform = Platform(app, dsn, cache=0)
        await platform.client.start(long, steps, id=f"l{steps}")
        await platform.deliver(f"l{steps}")
        platform.clock.advance(60_000)
        before = platform.store.calls
        await platform.deliver(f"l{steps}")
        assert await platform.client.handle(f"l{steps}").result(0) == steps
        await platform.close()
        return platform.store.calls - before

    assert asyncio.run(scenario()) == 2  # the resume, and the result


@pytest.mark.parametrize("cache", [64, 0], ids=["warm", "cold"])
def test_a_back_off_is_resumed_by_its_plan_too(dsn: str, cache: int) -> None:
    async def scenario() -> None:
        platform = Platform(app, dsn, cache=cache)
        await platform.client.start(stubborn, id=f"s{cache}")
        await platform.until_settled(f"s{cache}")
        assert await platform.client.handle(f"s{cache}").result(0) == f"s{cache} fails"
        assert ran[f"s{cache} fails"] == 3
        await platform.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("cache", [64, 0], ids=["warm", "cold"])
def test_what_arrives_beside_the_plan_is_delivered_after_it(dsn: str, cache: int) -> None:
    async def scenario() -> None:
        id = f"b{cache}"
        platform = Platform(app, dsn, cache=cache)
        await platform.client.start(busy, id=id)
        await platform.deliver(id)
        await platform.client.resolve(f"{id}.1", "yes")
        await platform.until_settled(id)
        assert await platform.client.handle(id).result(0) == ["yes", f"{id} after"]
        assert (await platform.client.verify()).problems == []
        await platform.close()

    asyncio.run(scenario())


def test_stores_without_it_keep_no_plan() -> None:
    from everstep import Client
    from everstep.driver import Driver
    from everstep.ports import Wake
    from everstep.wakers.local import LocalWaker

    async def scenario() -> None:
        store, clock = MemoryStore(), VirtualClock()
        client = Client(store, LocalWaker(), app=app, clock=clock)
        driver = Driver(app, store, LocalWaker(), clock, service=client.service)
        assert driver.resumer is None
        await client.start(countdown, 2, id="m")
        await driver.deliver(Wake("m"))
        stands = (await store.load(["m"]))["m"]
        assert '"q"' not in (stands.task or "")
        record = from_row(stands)
        assert record.task is not None
        assert record.task.state is TaskState.SUSPENDED
        assert record.task.planned is None

    asyncio.run(scenario())


def test_the_store_says_that_it_can() -> None:
    from everstep.ports import resumer

    assert resumer(open_store("postgresql://nowhere/x")) is not None
