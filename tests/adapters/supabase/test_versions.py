"""Other versions of Postgres than the newest: the suites of stores and wakers and a differential run, over both
connections.

The newest has test_store.py, test_rpc.py and test_waker.py. In a normal run this is the oldest one found;
EVERSTEP_PG_VERSIONS=all takes every one (`make soak`).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from everstep import App, Context
from everstep.clock import VirtualClock
from everstep.local import Runtime
from everstep.ports import Put, Store, Wake
from everstep.stores import open_store
from everstep.stores.memory import MemoryStore
from everstep.testing.conformance import Rig, StoreSuite, WakerSuite
from everstep.testing.conformance.differential import Outcome, compare
from everstep.testing.conformance.rows import commit
from everstep_supabase.rows import unescaped
from everstep_supabase.rpc import RpcStore
from tests.adapters.supabase import test_resume
from tests.adapters.supabase.conftest import migration
from tests.adapters.supabase.standins import PostgREST, token
from tests.adapters.supabase.test_rpc import Kept
from tests.adapters.supabase.test_store import QUIET, ROUNDS, SEED
from tests.adapters.supabase.test_waker import ListeningRig
from tools.components import postgres

pytestmark = pytest.mark.xdist_group("postgres-versions")

FOUND = postgres.find() or {}
OTHERS = sorted(version for version, binaries in FOUND.items() if binaries != postgres.newest())
CHOSEN = OTHERS if os.environ.get("EVERSTEP_PG_VERSIONS") == "all" else OTHERS[:1]


class Database(NamedTuple):
    version: int
    dsn: str
    api: str


@pytest.fixture(scope="module", params=CHOSEN or [None])
def running(request: pytest.FixtureRequest) -> Iterator[Database]:
    if request.param is None:
        pytest.skip("one version of Postgres is all there is here")
    settings = {"fsync": "off", "synchronous_commit": "off"}
    with postgres.Server(FOUND[request.param], settings=settings) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute((Path(__file__).parent / "standins.sql").read_bytes())
            connection.execute(migration())
            assert connection.info.server_version // 10_000 == request.param
        role = f"postgresql://authenticator:authenticator@127.0.0.1:{server.port}/postgres"
        with PostgREST(role) as api:
            yield Database(request.param, server.dsn, api.url)


@pytest.fixture
def database(running: Database) -> Database:
    with psycopg.connect(running.dsn, autocommit=True) as connection:
        connection.execute("truncate everstep.rows, everstep.bells, vault.secrets, net.http_request_queue")
    return running


class TestDirect(StoreSuite):
    @pytest.fixture(autouse=True)
    def _database(self, database: Database) -> None:
        self.url = database.dsn

    async def open(self) -> Store:
        return open_store(self.url)

    async def reopen(self, store: Store) -> Store:
        await store.close()
        return open_store(self.url)


class TestOverHTTP(StoreSuite):
    @pytest.fixture(autouse=True)
    def _database(self, database: Database) -> None:
        self.url = database.api

    async def open(self) -> Store:
        return Kept(self.url, token("service_role"))

    async def reopen(self, store: Store) -> Store:
        await store.close()
        return RpcStore(self.url, token("service_role"))


class TestListening(WakerSuite):
    @pytest.fixture(autouse=True)
    def _database(self, database: Database) -> None:
        self.dsn = database.dsn

    async def open(self) -> Rig:
        return ListeningRig(self.dsn)


class Looking:
    """What is due is found by looking, as pg_cron does, and what was sent in the queue of pg_net; all over HTTP."""

    def __init__(self, database: Database) -> None:
        self.store = Kept(database.api, token("service_role"))
        self._dsn = database.dsn
        self.waker = self.store.waker()
        self.clock = VirtualClock()

    def now(self) -> int:
        return self.clock.now()

    async def advance(self, to: int) -> list[Wake]:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            posted = connection.execute("delete from net.http_request_queue returning body").fetchall()
        bodies = [json.loads(bytes(body)) for (body,) in posted]
        delivered = [Wake(unescaped(body["id"]), body["version"]) for body in bodies]
        while due := await self.store.due(to, 1):
            self.clock.set(max(self.now(), due[0].due))
            (standing,) = (await self.store.load([due[0].id])).values()
            await self.store.commit(commit(Put(standing._replace(rev=standing.rev + 1, due=None), standing.rev)))
            delivered.append(Wake(due[0].id))
        self.clock.set(max(self.now(), to))
        return delivered

    async def close(self) -> None:
        await self.store.close()


class TestWakingOverHTTP(WakerSuite):
    versions = False

    @pytest.fixture(autouse=True)
    def _database(self, database: Database) -> None:
        self.database = database
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            connection.execute("select vault.create_secret('http://localhost/wake', 'everstep_url')")

    async def open(self) -> Rig:
        return Looking(self.database)


@pytest.mark.parametrize("over", ["direct", "HTTP"])
def test_it_agrees_with_memory_until_nothing_new_is_reached(database: Database, over: str) -> None:
    async def run() -> Outcome:
        store: Store = open_store(database.dsn) if over == "direct" else Kept(database.api, token("service_role"))
        most = ROUNDS if over == "direct" else ROUNDS // 5
        try:
            return await compare(MemoryStore(), store, random.Random(SEED), quiet_rounds=QUIET, most_rounds=most)
        finally:
            await store.close()

    assert asyncio.run(run()).signatures > (250 if over == "direct" else 100)


def test_any_claim_is_what_the_core_calls_an_acquisition(database: Database) -> None:
    test_resume.test_any_claim_is_what_the_core_calls_an_acquisition(database.dsn)


app = App("versions")


@app.step
def double(n: int) -> int:
    return 2 * n


@app.workflow
async def fan(ctx: Context, count: int) -> int:
    await ctx.sleep(0.01)
    return sum(await asyncio.gather(*[ctx.rpc(double, n) for n in range(count)]))


def test_a_workflow_runs(database: Database) -> None:
    async def scenario() -> object:
        async with Runtime(app, database.dsn) as runtime:
            return await (await runtime.run(fan, 5, id="fan")).result()

    assert asyncio.run(scenario()) == 20
