"""The migration: on every Postgres found, twice, from the version before, undone, and by several at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from everstep import App, Context
from everstep.errors import StoreError
from everstep.local import Runtime
from everstep.ports import Query
from everstep.stores import open_store
from everstep.testing.conformance import StoreSuite
from everstep.testing.conformance.rows import row, write
from tests.adapters.supabase.conftest import migration
from tests.adapters.supabase.test_versions import CHOSEN
from tools.components import postgres

pytestmark = pytest.mark.xdist_group("postgres")

HERE = Path(__file__).parent


def fresh(server: postgres.Server, name: str) -> str:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f'drop database if exists "{name}" with (force)'.encode())
        connection.execute(f'create database "{name}"'.encode())
    return server.dsn.rsplit("/", 1)[0] + f"/{name}"


def schema(dsn: str) -> list[object]:
    """Everything the migration makes, as the catalogue tells it."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "select 'column', table_name || '.' || column_name, data_type from information_schema.columns"
            " where table_schema = 'everstep'"
            " union all select 'index', indexname, indexdef from pg_indexes where schemaname = 'everstep'"
            " union all select 'function', p.oid::regprocedure::text, md5(prosrc) from pg_proc p"
            " where pronamespace = to_regnamespace('everstep') order by 1, 2"
        ).fetchall()


def test_it_applies_twice_and_keeps_every_row(server: postgres.Server) -> None:
    dsn = fresh(server, "twice")

    async def scenario() -> None:
        store = open_store(dsn)
        await write(store, row("a", due=1), row("a.1"))
        first = schema(dsn)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(migration())
        assert schema(dsn) == first
        assert (await store.find(Query())).rows == [row("a", due=1), row("a.1")]
        await store.close()

    asyncio.run(scenario())


def test_it_upgrades_what_the_first_version_left_behind(server: postgres.Server) -> None:
    """`version_1.sql` is what the first version applied; rows of then are rows of now."""
    dsn, new = fresh(server, "older"), fresh(server, "newer")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute((HERE / "version_1.sql").read_bytes())
        connection.execute(
            "insert into everstep.rows (id, branch, kind, state, rev, due, created_at)"
            " values ('a', 'a', 'step', 'pending', 1, 5, 1700000000000)"
        )
        connection.execute(migration())
    with psycopg.connect(new, autocommit=True) as connection:
        connection.execute(migration())
    assert schema(dsn) == schema(new)

    async def scenario() -> None:
        store = open_store(dsn)
        assert await store.load(["a"]) == {"a": row("a", due=5)}
        assert await store.due(9, 9) == [("a", 5)]
        await store.close()

    asyncio.run(scenario())


def test_it_is_undone_and_done_again(server: postgres.Server) -> None:
    dsn = fresh(server, "undone")

    def everything() -> list[object]:
        with psycopg.connect(dsn) as connection:
            return connection.execute(
                "select nspname from pg_namespace where nspname !~ '^pg_' union all"
                " select proname from pg_proc where pronamespace = 'public'::regnamespace union all"
                " select relname from pg_class where relnamespace = 'public'::regnamespace order by 1"
            ).fetchall()

    before = everything()
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name in ("everstep", "everstep_down", "everstep_down", "everstep"):
            connection.execute(migration(name))
        connection.execute(migration("everstep_down"))
    assert everything() == before


def test_a_new_database_gets_it_on_first_use_by_however_many(server: postgres.Server) -> None:
    dsn = fresh(server, "first use")

    async def scenario() -> None:
        stores = [open_store(dsn.replace(" ", "%20")) for _ in range(6)]
        assert await asyncio.gather(*[store.load(["a"]) for store in stores]) == [{}] * 6
        for store in stores:
            await store.close()

    asyncio.run(scenario())


def test_the_command_line_applies_and_undoes_it(server: postgres.Server) -> None:
    dsn = fresh(server, "commanded")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "everstep_supabase", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("sql").stdout.encode() == migration()
    for _ in range(2):
        assert run("migrate", dsn).returncode == 0
    assert len(schema(dsn)) > 20
    assert run("down", dsn).returncode == 0
    assert schema(dsn) == []
    assert run("up").returncode == 2
    refused = run("migrate", dsn.replace("postgres:", "postgres:wrong", 1).replace("127.0.0.1:", "127.0.0.1:"))
    assert refused.returncode == 1
    assert "authentication failed" in refused.stderr


def test_a_role_that_may_not_create_it_is_told_what_to_do(server: postgres.Server) -> None:
    dsn = fresh(server, "poor")
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("drop role if exists poor")
        connection.execute("create role poor login password 'poor'")
    poor = f"postgresql://poor:poor@127.0.0.1:{server.port}/poor"

    async def scenario() -> None:
        store = open_store(poor)
        with pytest.raises(StoreError, match="permission denied"):
            await store.load(["a"])
        await store.close()

    asyncio.run(scenario())
    assert dsn


@pytest.mark.parametrize("version", [15, 16, 17, 18])
def test_every_version_found_runs_a_workflow_and_the_suite_in_short(version: int) -> None:
    binaries = (postgres.find() or {}).get(version)
    if binaries is None:
        pytest.skip(f"no Postgres {version} here")
    if version in (*CHOSEN, max(postgres.find() or {0: None})):
        pytest.skip("in full elsewhere")
    app = App("versions")

    @app.step
    def double(n: int) -> int:
        return 2 * n

    @app.workflow
    async def fan(ctx: Context, count: int) -> int:
        await ctx.sleep(0.01)
        return sum(await asyncio.gather(*[ctx.rpc(double, n) for n in range(count)]))

    with postgres.Server(binaries, settings={"fsync": "off"}) as server:

        async def scenario() -> object:
            async with Runtime(app, server.dsn) as runtime:
                return await (await runtime.run(fan, 5, id="fan")).result()

        assert asyncio.run(scenario()) == 20

        class Suite(StoreSuite):
            async def open(self):  # type: ignore[no-untyped-def]
                with psycopg.connect(server.dsn, autocommit=True) as connection:
                    connection.execute("truncate everstep.rows")
                return open_store(server.dsn)

        suite = Suite()
        for test in (
            suite.test_writes_all_or_nothing,
            suite.test_a_fence_holds_while_the_lease_does,
            suite.test_a_guard_holds_while_the_row_does,
            suite.test_finds_by_each_field,
            suite.test_keeps_strange_ids_apart,
            suite.test_no_increment_is_lost,
        ):
            test()
