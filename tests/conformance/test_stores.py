"""The stores of the core against the suite that every store must pass."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from everstep.ports import Store
from everstep.stores import open_store
from everstep.stores.counted import Counted
from everstep.testing.conformance import StoreSuite


class TestMemory(StoreSuite):
    async def open(self) -> Store:
        return open_store("memory:")


class TestSharedMemory(StoreSuite):
    async def open(self) -> Store:
        self.url = f"memory:{uuid.uuid4()}"
        return open_store(self.url)

    async def reopen(self, store: Store) -> Store:
        return open_store(self.url)


class TestSqlite(StoreSuite):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path / 'everstep.db'}?synchronous=normal"

    async def open(self) -> Store:
        return open_store(self.url)

    async def reopen(self, store: Store) -> Store:
        await store.close()
        return open_store(self.url)


class TestCounted(StoreSuite):
    async def open(self) -> Store:
        return Counted(open_store("memory:"))
