"""The DynamoDB store against the suite that every store must pass, and against the oracle.

moto is quick and forgiving; what counts where several write is DynamoDB Local.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator

import pytest
from moto import mock_aws

from everstep.ports import Store
from everstep.stores.memory import MemoryStore
from everstep.testing.conformance import StoreSuite
from everstep.testing.conformance.differential import Outcome, compare
from everstep_aws.store import DynamoStore

from .emulators import local_store, moto_store

pytestmark = pytest.mark.xdist_group("dynamodb-local")

QUIET = int(os.environ.get("EVERSTEP_DIFFERENTIAL_QUIET", "200"))
SEED = int(os.environ.get("EVERSTEP_DIFFERENTIAL_SEED", "1"))
MOST = int(os.environ.get("EVERSTEP_DIFFERENTIAL_ROUNDS", "400"))


class TestDynamoDBLocal(StoreSuite):
    fences_soft = False
    largest = 390_000

    async def open(self) -> Store:
        return local_store()

    async def reopen(self, store: Store) -> Store:
        assert isinstance(store, DynamoStore)
        return local_store(store.table)


class TestMoto(StoreSuite):
    fences_soft = False
    largest = 390_000

    @pytest.fixture(autouse=True)
    def _mocked(self) -> Iterator[None]:
        with mock_aws():
            yield

    async def open(self) -> Store:
        return moto_store()

    async def reopen(self, store: Store) -> Store:
        assert isinstance(store, DynamoStore)
        return moto_store(store.table)


async def _compared(other: Store, most: int = MOST) -> Outcome:
    try:
        return await compare(
            MemoryStore(), other, random.Random(SEED), quiet_rounds=QUIET, most_rounds=most, soft_fences=False
        )
    finally:
        await other.close()


def test_dynamodb_local_agrees_with_memory() -> None:
    assert asyncio.run(_compared(local_store())).signatures > 130


def test_moto_agrees_with_memory() -> None:
    with mock_aws():
        assert asyncio.run(_compared(moto_store(), 120)).signatures > 50
