"""The Postgres store against the suite that every store must pass, and against the oracle."""

from __future__ import annotations

import asyncio
import os
import random
import socket

import pytest

from everstep.ports import Store
from everstep.stores import open_store
from everstep.stores.memory import MemoryStore
from everstep.testing.conformance import StoreSuite
from everstep.testing.conformance.differential import Outcome, compare
from everstep_supabase.connections import Options, Pool

pytestmark = pytest.mark.xdist_group("postgres")

QUIET = int(os.environ.get("EVERSTEP_DIFFERENTIAL_QUIET", "80"))
ROUNDS = int(os.environ.get("EVERSTEP_DIFFERENTIAL_ROUNDS", "1500"))
SEED = int(os.environ.get("EVERSTEP_DIFFERENTIAL_SEED", "1"))


class TestPostgres(StoreSuite):
    @pytest.fixture(autouse=True)
    def _database(self, dsn: str) -> None:
        self.url = dsn

    async def open(self) -> Store:
        return open_store(self.url)

    async def reopen(self, store: Store) -> Store:
        await store.close()
        return open_store(self.url)


class TestPostgresThroughAPooler(TestPostgres):
    """Nothing is prepared: what a pooler in transaction mode allows."""

    @pytest.fixture(autouse=True)
    def _pooled(self, dsn: str) -> None:
        self.url = f"{dsn}?prepare=no&pool=2"


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")
@pytest.mark.parametrize(("asked", "found"), [("", 20_000), ("?tcp_user_timeout=7000", 7_000)])
def test_a_connection_whose_other_end_is_gone_is_not_waited_on_for_ever(dsn: str, asked: str, found: int) -> None:
    async def scenario() -> None:
        connection = await Pool(dsn + asked).connect()
        with socket.socket(fileno=os.dup(connection.fileno())) as wire:
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == found
            assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 20
        await connection.close()

    asyncio.run(scenario())


def test_a_url_may_name_several_hosts() -> None:
    """As libpq takes them; and what is said of trouble never has the password."""
    options = Options("postgresql://me:secret@one:5432,two:6543/runs?target_session_attrs=primary")
    assert options.name == "one:5432,two:6543/runs"
    assert not options.prepare
    assert Options("postgresql:///runs").name == "localhost:5432/runs"
    assert Options("postgresql://one/runs").prepare


def test_options_of_libpq_arrive_as_they_were_written(dsn: str) -> None:
    """To libpq a plus is no space."""

    async def scenario() -> None:
        connection = await Pool(f"{dsn}?options=-c%20statement_timeout%3D4321%20-c%20lock_timeout%3D1234").connect()
        found = await connection.execute("select current_setting('statement_timeout'), current_setting('lock_timeout')")
        assert await found.fetchone() == ("4321ms", "1234ms")
        await connection.close()

    asyncio.run(scenario())


def test_postgres_agrees_with_memory_until_nothing_new_is_reached(dsn: str) -> None:
    async def run() -> Outcome:
        store = open_store(dsn)
        try:
            return await compare(MemoryStore(), store, random.Random(SEED), quiet_rounds=QUIET, most_rounds=ROUNDS)
        finally:
            await store.close()

    assert asyncio.run(run()).signatures > 250
