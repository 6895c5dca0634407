"""A step's own rows and its checkpoint commit together (system 26): killed at every point, each row is there once."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import psycopg
import pytest

import everstep_supabase
from everstep import App, Context, Retry
from everstep.errors import StoreUnavailable, UsageError
from everstep.http import asgi
from everstep.ports import Fence, Put
from everstep.promise import State
from everstep.steps import StepInfo, _current
from everstep.testing.conformance.rows import commit, row, write
from everstep_supabase.store import PostgresStore
from tests.adapters.supabase.sim import Died, Platform

pytestmark = pytest.mark.xdist_group("postgres")

LEDGER = """
drop table if exists ledger;
create table ledger (id bigserial, transfer text, account text, cents bigint);
"""

tries: Counter[str] = Counter()
die_at: set[str] = set()
app = App("bank")


def moment(name: str) -> None:
    """A point inside a step at which the process may die, or the step may fail."""
    tries[name] += 1
    if name in die_at:
        die_at.discard(name)
        raise ConnectionError(name) if name.startswith("fail") else Died


async def book(transfer: str, account: str, cents: int, side: str) -> int:
    moment(f"before {side}")
    async with everstep_supabase.transaction(stores[-1]) as connection:
        found = await connection.execute(
            "insert into ledger (transfer, account, cents) values (%s, %s, %s) returning cents",
            (transfer, account, cents),
        )
        made = await found.fetchone()
        assert made is not None
        moment(f"inside {side}")
        moment(f"fail inside {side}")
    moment(f"after {side}")
    moment(f"fail after {side}")
    return int(made[0])


stores: list[PostgresStore] = []


@app.step(retry=Retry(attempts=3, first=1))
async def debit(transfer: str, account: str, cents: int) -> int:
    return await book(transfer, account, -cents, "debit")


@app.step(retry=Retry(attempts=3, first=1))
async def credit(transfer: str, account: str, cents: int) -> int:
    return await book(transfer, account, cents, "credit")


@app.workflow
async def transfer(ctx: Context, source: str, target: str, cents: int) -> int:
    taken = await ctx.run(debit, ctx.id, source, cents)
    given = await ctx.run(credit, ctx.id, target, cents)
    return taken + given


def ledger(dsn: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute("select transfer, account, cents from ledger order by cents").fetchall()


@pytest.fixture
def bank(dsn: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(LEDGER)
    tries.clear()
    die_at.clear()
    return dsn


ONCE = [("t", "alice", -500), ("t", "bob", 500)]


async def run(dsn: str, at: int | None = None) -> int:
    platform = Platform(app, dsn, at)
    await platform.client.start(transfer, "alice", "bob", 500, id="t")

    class Current(list[PostgresStore]):
        def __getitem__(self, _: object) -> PostgresStore:  # type: ignore[override]
            return platform.store

    global stores
    stores = Current()
    await platform.until_settled("t")
    assert await platform.client.handle("t").result(0) == 0
    assert (await platform.client.verify()).problems == []
    calls = platform.store.calls
    await platform.close()
    return calls


def test_killed_at_every_database_call_the_ledger_holds_each_row_once(bank: str) -> None:
    calls = asyncio.run(run(bank))
    assert ledger(bank) == ONCE
    for point in range(2 * calls):
        with psycopg.connect(bank, autocommit=True) as connection:
            connection.execute("truncate ledger, everstep.rows")
        asyncio.run(run(bank, point))
        assert ledger(bank) == ONCE, point


@pytest.mark.parametrize("side", ["debit", "credit"])
@pytest.mark.parametrize("where", ["before", "inside", "after", "fail inside", "fail after"])
def test_killed_or_failed_inside_a_step_the_ledger_holds_each_row_once(bank: str, where: str, side: str) -> None:
    die_at.add(f"{where} {side}")
    asyncio.run(run(bank))
    assert ledger(bank) == ONCE
    assert tries[f"before {side}"] == 2


def test_a_step_that_fails_for_good_leaves_no_row(bank: str) -> None:
    class Always(set[str]):
        def __contains__(self, name: object) -> bool:
            return name == "fail after credit"

    global die_at
    before, die_at = die_at, Always()
    try:
        with pytest.raises(ConnectionError):
            asyncio.run(run(bank))
    finally:
        die_at = before
    assert ledger(bank) == ONCE[:1]


def test_a_holder_that_lost_its_lease_leaves_no_row(bank: str) -> None:
    async def scenario() -> None:
        store = PostgresStore(bank)
        await write(store, row("t", lease=2))
        token = _current.set(StepInfo("t.1", 1, App()))
        try:
            async with everstep_supabase.transaction(store) as connection:
                await connection.execute("insert into ledger (transfer) values ('late')")
        finally:
            _current.reset(token)
        done = commit(Put(row("t.1", state=State.RESOLVED.value), 0), fence=Fence("t", 1, soft=True))
        refused = await store.commit(done)
        assert refused is not None
        assert refused.fenced
        assert await store.load(["t.1"]) == {}
        await store.close()

    asyncio.run(scenario())
    assert ledger(bank) == []


def test_where_another_holders_checkpoint_stands_the_rows_go_and_the_run_is_loaded_again(bank: str) -> None:
    async def scenario() -> None:
        store = PostgresStore(bank)
        await write(store, row("t", lease=2), row("t.1", state=State.RESOLVED.value))
        token = _current.set(StepInfo("t.1", 1, App()))
        try:
            async with everstep_supabase.transaction(store) as connection:
                await connection.execute("insert into ledger (transfer) values ('twice')")
        finally:
            _current.reset(token)
        with pytest.raises(StoreUnavailable, match="stands already"):
            await store.commit(commit(Put(row("t.1", state=State.RESOLVED.value), 0), fence=Fence("t", 2, soft=True)))
        await store.close()

    asyncio.run(scenario())
    assert ledger(bank) == []


def test_it_is_for_steps_and_knows_which_store(bank: str) -> None:
    async def scenario() -> None:
        first, second = PostgresStore(bank), PostgresStore(bank)
        with pytest.raises(LookupError):
            async with everstep_supabase.transaction(first):
                pass
        token = _current.set(StepInfo("t.1", 1, App()))
        try:
            with pytest.raises(UsageError, match="stores of Postgres are open"):
                async with everstep_supabase.transaction():
                    pass
            with pytest.raises(UsageError, match="ended its transaction"):
                async with everstep_supabase.transaction(first) as connection:
                    await connection.commit()
        finally:
            _current.reset(token)
        assert first.staged == {}
        await first.close()
        await second.close()

    asyncio.run(scenario())


def test_two_posts_of_one_transfer_are_one_debit_and_one_credit(bank: str) -> None:
    """System 26, behind HTTP."""

    async def scenario() -> None:
        platform = Platform(app, bank)
        global stores
        stores = [platform.store]
        site = asgi(platform.client, app)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=site), base_url="http://bank") as http:
            body = {"id": "t", "args": ["alice", "bob", 500]}
            answers = await asyncio.gather(*[http.post("/workflows/transfer", json=body) for _ in range(2)])
            assert [answer.status_code for answer in answers] == [202, 202]
            await asyncio.gather(*[platform.deliver("t") for _ in range(3)])
            await platform.until_settled("t")
            again = await http.post("/workflows/transfer", json=body)
            assert again.json()["id"] == answers[0].json()["id"] == "t"
            assert (await http.get("/promises/t")).json()["value"] == 0
            other = await http.post("/workflows/transfer", json={"id": "t", "args": ["alice", "bob", 501]})
            assert other.status_code == 409
        await platform.close()

    asyncio.run(scenario())
    assert ledger(bank) == ONCE
