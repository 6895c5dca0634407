"""Hostile ids, tags and payloads change nothing but their own record, and the schema is closed to strangers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from everstep import App, Client, Context
from everstep.clock import VirtualClock
from everstep.errors import StoreError
from everstep.ports import Fence, Guard, Put, Query, Store
from everstep.stores import open_store
from everstep.testing.conformance.rows import STRANGE_IDS, commit, row, write
from everstep.wakers.local import LocalWaker
from tests.adapters.supabase.conftest import migration
from tools.components import postgres

pytestmark = pytest.mark.xdist_group("postgres")

INJECTIONS = (
    "'; drop schema everstep cascade; --",
    "$1",
    "%s %(id)s",
    "{x,NULL}",
    '{"a": "b"}',
    "\\x00",
    "a\x01b\0c\x02",
    "\u202e\ufeff",
    "NULL",
    "",
    "$$; select pg_sleep(9); $$",
)
DEEP = "[" * 5000 + "]" * 5000


TEXTS = [*INJECTIONS, DEEP, "x" * 10_000_000]


async def kept(store: Store, text: str) -> None:
    """What any store of ours must do with any text, whatever it is part of."""
    id = (text[:300] or "empty").replace(".", "_")
    tags = json.dumps({"t": text[:1000], text[:1000]: "1"}, separators=(",", ":"), ensure_ascii=False)
    bystander = row("bystander", value="safe", tags='{"t":"x"}')
    hostile = row(id, param=text, value=text, tags=tags, rest=json.dumps({"x": text}))
    child = row(f"{id}.1", branch=id, param=text, lease=4)
    await write(store, bystander, hostile, child)
    several = commit(
        Put(hostile._replace(rev=2), 1),
        Put(row(f"{id}.2", branch=id, value=text), 0),
        deletes=(f"{id}.9", f"{text[:500]}!"),
        fence=Fence(f"{id}.1", 4),
        guards=(Guard("bystander", 1),),
    )
    assert await store.commit(several) is None
    refused = await store.commit(several)
    assert refused is not None
    assert refused.found[id] == hostile._replace(rev=2)
    assert await store.load([id, "bystander"]) == {id: hostile._replace(rev=2), "bystander": bystander}
    assert {found.id for found in await store.branch(id)} == {id, f"{id}.1", f"{id}.2"}
    page = await store.find(Query(tags={"t": text[:1000]}))
    assert [found.id for found in page.rows] == [id]
    assert (await store.find(Query(prefix=id, roots=True))).rows == [hostile._replace(rev=2)]
    assert await store.delete(id) == 3
    assert (await store.find(Query())).rows == [bystander]
    await store.close()


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:12]))
def test_any_text_is_kept_as_it_is_and_harms_nobody(dsn: str, text: str) -> None:
    asyncio.run(kept(open_store(dsn), text))


def test_tags_that_look_like_others_are_not_taken_for_them(dsn: str) -> None:
    async def scenario() -> None:
        store = open_store(dsn)
        tags = json.dumps({"a": ":", "x": "y", '"k":"v"': '"k":"v"'}, separators=(",", ":"))
        await write(store, *[row(f"p{n:02}", tags=tags) for n in range(30)], row("q", tags='{":":",","k":"v"}'))
        page = await store.find(Query(tags={":": ","}, limit=3))
        assert [found.id for found in page.rows] == ["q"]
        assert page.cursor is None
        assert [found.id for found in (await store.find(Query(tags={"k": "v"}, limit=1))).rows] == ["q"]
        await store.close()

    asyncio.run(scenario())


def test_what_is_no_unicode_is_refused_and_changes_nothing(dsn: str) -> None:
    async def scenario() -> None:
        store = open_store(dsn)
        await write(store, row("a"))
        lone = "\ud800"
        for puts in ([Put(row("b", value=lone), 0)], [Put(row("a", rev=2), 1), Put(row("a.1", value=lone), 0)]):
            with pytest.raises(StoreError):
                await store.commit(commit(*puts))
        with pytest.raises(StoreError):
            await store.load([lone])
        with pytest.raises(StoreError):
            await store.commit(commit(Put(row("a", rev=2, due=2**80), 1)))
        assert (await store.find(Query())).rows == [row("a")]
        await store.close()

    asyncio.run(scenario())


def test_runs_with_hostile_ids_and_arguments_reach_their_end(dsn: str) -> None:
    app = App("hostile")

    @app.step
    def echo(what: Any) -> Any:
        return what

    @app.workflow
    async def twice(ctx: Context, what: Any) -> Any:
        return [await ctx.run(echo, what), await ctx.rpc(echo, what)]

    async def scenario() -> None:
        from everstep.driver import Driver
        from everstep.ports import Wake

        store, clock = open_store(dsn), VirtualClock()
        client = Client(store, LocalWaker(), app=app, clock=clock)
        driver = Driver(app, store, LocalWaker(), clock, service=client.service)
        ids = [id for id in STRANGE_IDS if len(id.encode()) < 900] + ["'; drop schema everstep; --", "\x01\x02 low"]
        handles = {id: await client.start("twice", {id: [id, "\0\x01"]}, id=id) for id in ids}
        while due := await store.due(clock.now(), 50):
            for one in due:
                await driver.deliver(Wake(one.id))
        for id, handle in handles.items():
            assert await handle.result(0) == [{id: [id, "\0\x01"]}] * 2
        await client.close()

    asyncio.run(scenario())


ROLES = """
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
grant usage on schema public to anon, authenticated, service_role;
alter default privileges grant all on tables to anon, authenticated, service_role;
alter default privileges grant all on functions to anon, authenticated, service_role;
alter default privileges grant usage on schemas to anon, authenticated, service_role;
"""


@pytest.fixture(scope="module")
def supabase_like() -> Iterator[str]:
    """A database that gives everything new to `anon` and `authenticated`, as Supabase does in `public`, and worse."""
    with postgres.Server(settings={"fsync": "off"}) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(ROLES.encode())
            connection.execute(migration())
            connection.execute(
                "insert into everstep.rows (id, branch, kind, state, rev, created_at) values ('a', '', '', '', 1, 1)"
            )
        yield server.dsn


def test_anon_and_authenticated_can_read_and_write_nothing(supabase_like: str) -> None:
    with psycopg.connect(supabase_like, autocommit=True) as connection:
        functions = connection.execute(
            "select p.oid::regprocedure::text, n.nspname, has_function_privilege('anon', p.oid, 'execute'),"
            " has_function_privilege('authenticated', p.oid, 'execute'),"
            " has_function_privilege('service_role', p.oid, 'execute')"
            " from pg_proc p join pg_namespace n on n.oid = pronamespace"
            " where nspname = 'everstep' or proname like 'everstep%'"
        ).fetchall()
        assert len(functions) > 5
        for name, _, anon, authenticated, service in functions:
            assert (anon, authenticated, service) == (False, False, True), name
        for role in ("anon", "authenticated"):
            connection.execute(f"set role {role}")
            for statement in (
                "select * from everstep.rows",
                "select * from everstep.bells",
                "insert into everstep.rows (id, branch, kind, state, rev, created_at) values ('x', '', '', '', 1, 1)",
                "update everstep.rows set rev = 9",
                "delete from everstep.rows",
                "truncate everstep.rows",
                "select everstep.commit('{}')",
                "select * from everstep.branch('a')",
                "select everstep.delete_origin('a')",
                "select * from everstep.find('{}')",
                "create table everstep.mine (x int)",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
            connection.execute("reset role")
        connection.execute("set role service_role")
        assert connection.execute("select count(*) from everstep.branch('a')").fetchone() == (1,)


def test_rows_are_closed_even_to_a_role_that_was_granted_the_table(supabase_like: str) -> None:
    """Row-level security stands when somebody clicks a grant together."""
    with psycopg.connect(supabase_like, autocommit=True) as connection:
        connection.execute("grant usage on schema everstep to anon")
        connection.execute("grant all on all tables in schema everstep to anon")
        connection.execute("set role anon")
        assert connection.execute("select count(*) from everstep.rows").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "insert into everstep.rows (id, branch, kind, state, rev, created_at) values ('x', '', '', '', 1, 1)"
            )
        assert connection.execute("update everstep.rows set rev = 9").rowcount == 0
