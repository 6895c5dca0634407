"""The Postgres store against the suite that every store must pass, and against the oracle."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from everstep.ports import Store
from everstep.stores import open_store
from everstep.stores.memory import MemoryStore
from everstep.testing.conformance import StoreSuite
from everstep.testing.conformance.differential import Outcome, compare

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


def test_postgres_agrees_with_memory_until_nothing_new_is_reached(dsn: str) -> None:
    async def run() -> Outcome:
        store = open_store(dsn)
        try:
            return await compare(MemoryStore(), store, random.Random(SEED), quiet_rounds=QUIET, most_rounds=ROUNDS)
        finally:
            await store.close()

    assert asyncio.run(run()).signatures > 250
