"""A resume in one request: the store acquires as the core would have, to the letter, and loads."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from everstep import App, Context, Retry
from everstep.clock import NEVER, VirtualClock
from everstep.ports import Beside, Claim, Put, Store, resumer
from everstep.promise import TARGET, Kind, Payload, Plan, Record, Segment, Stamp, State, Task, TaskState, Tree, due_at
from everstep.resuming import inbox_of, taken
from everstep.rows import from_row, to_row
from everstep.stores import open_store
from everstep.stores.memory import MemoryStore
from everstep.testing.conformance.rows import commit, write
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
    planned=Plan(7),
)
RECORD = Record(
    "a", State.PENDING, "root", "a", Payload('["f",[1]]'), tags={TARGET: "everstep://shop"}, task=SLEEPING, rev=5
)


CASES = 600
HARD = ("\\u0000", "\\u0001")


def task(**changes: Any) -> Record:
    return RECORD._replace(task=SLEEPING._replace(**changes))


def child(id: str, state: State = State.PENDING, settled_at: int | None = None, **more: Any) -> Record:
    return Record(id, state, Kind.PROMISE, "a", created_at=1, settled_at=settled_at, rev=1, **more)


async def agreed(store: Store, record: Record, others: Sequence[Record]) -> tuple[str, ...] | None:
    """What the store says that it delivers, after it was found to have done what the core would have."""
    await write(store, to_row(record), *[to_row(other) for other in others])
    resumes = resumer(store)
    assert resumes is not None
    found = await resumes.resume(record.id, CLAIM)
    expected = inbox_of(record, {other.id: other for other in others}, CLAIM)
    assert found.inbox == expected, (record, others)
    assert found.rows[0] == to_row(record)
    assert sorted(found.rows[1:]) == sorted(to_row(other) for other in others)
    (stands,) = (await store.load([record.id])).values()
    if expected is None:
        assert stands == to_row(record)
        return None
    acquired = taken(record, expected, CLAIM)
    assert acquired is not None
    assert acquired.task is not None
    assert from_row(stands) == acquired._replace(rev=record.rev + 1)
    assert stands.due == due_at(acquired)
    assert stands.lease == acquired.task.version
    return expected


@pytest.mark.parametrize(
    ("record", "others", "inbox"),
    [
        pytest.param(RECORD, [], ("a.2",), id="a timer"),
        pytest.param(task(planned=Plan(0, (), ("a.2",)), segments=()), [], (), id="a back-off"),
        pytest.param(
            task(tree=("any", "a.2", "a.3"), timers=(("a.3", 4_500), ("a.2", 4_900), ("a.4", 5_001))),
            [],
            ("a.3", "a.2"),
            id="several timers",
        ),
        pytest.param(
            task(tree=("all", "a.3", "a.2", "a.4"), poll_at=4_999),
            [child("a.3", State.RESOLVED, 4_100), child("a.4", State.REJECTED, 3_000)],
            ("a.4", "a.2", "a.3"),
            id="a fan-in",
        ),
        pytest.param(
            task(tree=("try", "a.3", "a.4"), timers=()),
            [child("a.3"), child("a.4", State.TIMEDOUT, 3_000)],
            ("a.4",),
            id="the first failure",
        ),
        pytest.param(
            task(planned=Plan(7, ("a.1", "a.9"))),
            [child("a.1", State.CANCELED, 4_000), child("a.9")],
            ("a.1", "a.2"),
            id="what arrived beside",
        ),
        pytest.param(
            task(tree=("any", "a.7"), timers=(), foreign=(("a.7", "b"),), poll_at=9_000, planned=Plan(3)),
            [Record("b", State.RESOLVED, settled_at=2, rev=1)],
            (),
            id="another origin",
        ),
        pytest.param(task(generation=3, carried=Payload('["f",[2]]', {"key": "ü"})), [], ("a.2",), id="a generation"),
        pytest.param(RECORD._replace(timeout_at=30_000), [], ("a.2",), id="a deadline before the lease's end"),
        pytest.param(
            RECORD._replace(timeout_at=300_000, callbacks=("b",), listeners=("c",)), [], ("a.2",), id="awaiters"
        ),
        pytest.param(RECORD._replace(task=Task(TaskState.PENDING, retry_at=5_000)), [], (), id="what nobody ever held"),
        pytest.param(
            RECORD._replace(
                task=Task(TaskState.PENDING, 4, retry_at=1, segments=SLEEPING.segments, planned=Plan(9, ("a.3",)))
            ),
            [child("a.3", State.RESOLVED, 4_100)],
            ("a.3",),
            id="what was released",
        ),
        pytest.param(task(timers=(("a.2", 5_001),)), [], None, id="not yet"),
        pytest.param(task(planned=None), [], None, id="no plan"),
        pytest.param(RECORD._replace(tags={TARGET: "everstep://other"}), [], None, id="another App's"),
        pytest.param(task(state=TaskState.HALTED), [], None, id="halted"),
        pytest.param(task(state=TaskState.PENDING, retry_at=1, planned=None), [], None, id="woken by the protocol"),
        pytest.param(task(state=TaskState.PENDING, retry_at=5_001), [], None, id="a retry to come"),
        pytest.param(task(state=TaskState.ACQUIRED, expires_at=1), [], None, id="a lease that ended"),
        pytest.param(task(deaths=1), [], None, id="a death"),
        pytest.param(RECORD._replace(timeout_at=5_000), [], None, id="past its deadline"),
        pytest.param(RECORD._replace(state=State.CANCELED, settled_at=3, callbacks=("b",)), [], None, id="settled"),
        pytest.param(
            task(tree="a.3", timers=()), [child("a.3", timeout_at=4_000)], None, id="a child's deadline, not written"
        ),
        pytest.param(task(tree="a.3", timers=()), [], None, id="a child that is gone"),
        pytest.param(
            task(tree="a.3", timers=()),
            [Record("a.3", State.RESOLVED, Kind.STEP, "a", settled_at=4, stamp=Stamp(2, 3), rev=1)],
            None,
            id="an orphan is no arrival",
        ),
    ],
)
def test_a_claim_is_what_the_core_calls_an_acquisition(
    dsn: str, record: Record, others: list[Record], inbox: tuple[str, ...] | None
) -> None:
    async def scenario() -> None:
        store = PostgresStore(dsn)
        assert await agreed(store, record, others) == inbox
        await store.close()

    asyncio.run(scenario())


def random_tree(rng: random.Random, ids: list[str], depth: int = 0) -> Tree:
    if depth == 3 or rng.random() < 0.4:
        return rng.choice(ids)
    parts = [random_tree(rng, ids, depth + 1) for _ in range(rng.choice([0, 1, 2, 2, 3]))]
    return (rng.choice(["any", "all", "try"]), *parts)


def random_case(rng: random.Random, n: int) -> tuple[Record, list[Record]]:
    """A task in any state, with whatever beside it."""
    id = f"t{n}"
    keys = [f"{id}.{k}" for k in range(6)]
    strange = [f"{id}.é", f"{id}.\U0001f40c", f"{id}.'\"\\", *([f"{id}.\0", f"{id}.\x01"] if n % 7 == 0 else [])]
    keys += rng.sample(strange, 2)
    at = [CLAIM.now - 5, CLAIM.now - 1, CLAIM.now - 1, CLAIM.now, CLAIM.now + 1, NEVER]
    others = []
    for key in rng.sample(keys, rng.randint(0, 5)):
        state = rng.choice([State.PENDING, *State])
        when = None if state is State.PENDING else rng.choice(at[:4])
        more: dict[str, Any] = {"timeout_at": rng.choice([NEVER] * 20 + at)}
        if rng.random() < 0.15:
            more |= {"stamp": Stamp(1, 2), "kind": Kind.STEP}
        one = Record(key, state, Kind.PROMISE, id, created_at=1, settled_at=when, rev=1)
        others.append(one._replace(**more))
    foreign = []
    if rng.random() < 0.3:
        foreign.append((rng.choice(keys), f"f{n}"))
        state = rng.choice([State.PENDING, State.RESOLVED, State.REJECTED])
        tags = {"resonate:timer": "true"} if rng.random() < 0.3 else {}
        when = None if state is State.PENDING else 3
        timeout = rng.choice(at)
        if rng.random() < 0.8:
            others.append(Record(f"f{n}", state, tags=tags, timeout_at=timeout, settled_at=when, rev=1, branch=f"f{n}"))
    timers = tuple((key, rng.choice(at[:5])) for key in rng.sample(keys, rng.randint(0, 3)))
    mostly = rng.random() < 0.9
    segments = (Segment(1, 0, (keys[0],), 3),) if rng.random() < 0.7 else ()
    planned = Plan(
        rng.randint(0, 9), tuple(rng.sample(keys, rng.randint(0, 2))), tuple(rng.sample(keys, rng.randint(0, 2)))
    )
    held = Task(
        TaskState.SUSPENDED if mostly else rng.choice(list(TaskState)),
        rng.randint(0, 3),
        retry_at=rng.choice([None, *at[:5]]),
        tree=random_tree(rng, keys) if rng.random() < 0.9 else None,
        timers=timers,
        foreign=tuple(foreign),
        poll_at=rng.choice([None, CLAIM.now]),
        segments=segments,
        generation=rng.choice([1, 2]),
        deaths=rng.choice([0] * 19 + [1]),
        planned=planned if rng.random() < 0.9 else None,
    )
    target = rng.choice(["everstep://shop"] * 30 + ["everstep://shop/i1", "everstep://"])
    timeout = rng.choice([NEVER] * 8 + [CLAIM.now + 9, CLAIM.now])
    record = Record(
        id, State.PENDING, "root", id, tags={TARGET: target, "x": "\0" if n % 11 == 0 else "y"}, rev=3, task=held
    )
    return record._replace(timeout_at=timeout), others


def test_any_claim_is_what_the_core_calls_an_acquisition(dsn: str) -> None:
    rng = random.Random(4)

    async def scenario() -> Counter[int | None]:
        store = PostgresStore(dsn)
        met: Counter[int | None] = Counter()
        for n in range(CASES):
            record, others = random_case(rng, n)
            plain = "\\u0000" not in (to_row(record).tags or "") and not any(
                c in (to_row(record).task or "") for c in HARD
            )
            if plain:
                inbox = await agreed(store, record, others)
                met[None if inbox is None else len(inbox)] += 1
            else:  # with escapes in it, the store leaves it to the core
                await write(store, to_row(record))
                assert (await store.resume(record.id, CLAIM)) == ([to_row(record)], None)
        await store.close()
        return met

    met = asyncio.run(scenario())
    assert min(met[None], met[0], met[1], met[2]) > CASES / 50, met


def test_only_what_a_warm_body_waits_for_is_read_and_all_of_it_if_the_run_went_on(dsn: str) -> None:
    async def scenario() -> None:
        store = PostgresStore(dsn)
        record = task(tree="a.3", timers=(), planned=Plan(7, ("a.4",)))
        others = [child("a.3"), child("a.4", State.RESOLVED, 9), child("a.5"), child("a.1.1")._replace(branch="a.1")]
        rows = {other.id: to_row(other) for other in others}
        await write(store, to_row(record), *rows.values())
        asked = Beside(3, ("a.3", "nobody"))
        assert await store.resume("a", CLAIM, asked) == ([to_row(record), rows["a.3"]], None)
        gone_on = await store.resume("a", CLAIM, asked._replace(version=2))
        assert gone_on.rows[0] == to_row(record)
        assert sorted(gone_on.rows[1:]) == [rows["a.3"], rows["a.4"], rows["a.5"]]
        settled = to_row(child("a.3", State.RESOLVED, 10)._replace(rev=2))
        assert await store.commit(commit(Put(settled, 1))) is None
        found = await store.resume("a", CLAIM, asked)
        assert found.inbox == ("a.4", "a.3")
        assert sorted(found.rows[1:]) == [settled, rows["a.4"]]
        assert await store.resume("nobody", CLAIM) == ([], None)
        await store.close()

    asyncio.run(scenario())


def test_of_many_claims_one_is_granted(dsn: str) -> None:
    """All of them have read the task before any of them takes it."""

    async def waiting(connection: psycopg.AsyncConnection[Any]) -> int:
        found = await connection.execute("select count(*) from pg_stat_activity where wait_event_type = 'Lock'")
        row = await found.fetchone()
        assert row is not None
        return int(row[0])

    async def scenario() -> None:
        store = PostgresStore(dsn)
        await write(store, to_row(RECORD))
        watcher = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        async with await psycopg.AsyncConnection.connect(dsn) as blocker:
            await blocker.execute("select from everstep.rows where id = 'a' for update")
            claims = [asyncio.ensure_future(store.resume("a", CLAIM._replace(holder=f"i{n}"))) for n in range(8)]
            while await waiting(watcher) < 8:
                pass
        found = await asyncio.gather(*claims)
        assert [one.inbox for one in found].count(("a.2",)) == 1
        assert [one.inbox for one in found].count(None) == 7
        for one in found:
            assert (one.rows[0].lease is None) == (one.inbox is not None)
        await watcher.close()
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

    assert asyncio.run(scenario()) == [3, 3, 3, 3, 3, 2]  # the last has no step


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
        assert '"k"' not in (stands.task or "")
        record = from_row(stands)
        assert record.task is not None
        assert record.task.state is TaskState.SUSPENDED
        assert record.task.planned is None

    asyncio.run(scenario())


def test_the_store_says_that_it_can() -> None:
    assert resumer(open_store("postgresql://nowhere/x")) is not None
