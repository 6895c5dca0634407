"""Random operations on the memory store and on SQLite agree, until nothing new is reached.

EVERSTEP_DIFFERENTIAL_QUIET=100000 runs until so many rounds in a row bring nothing new, EVERSTEP_DIFFERENTIAL_SEED=7
from another start.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from everstep.ports import Commit, Refused
from everstep.rows import Row
from everstep.stores.memory import MemoryStore
from everstep.stores.sqlite import SqliteStore
from everstep.testing.conformance.differential import Difference, Outcome, compare

QUIET = int(os.environ.get("EVERSTEP_DIFFERENTIAL_QUIET", "500"))
SEED = int(os.environ.get("EVERSTEP_DIFFERENTIAL_SEED", "1"))


async def run(oracle: MemoryStore, other: MemoryStore | SqliteStore, quiet: int = QUIET) -> Outcome:
    try:
        return await compare(oracle, other, random.Random(SEED), quiet_rounds=quiet)
    finally:
        await other.close()


def test_sqlite_agrees_with_memory_until_nothing_new_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "everstep.db"
    outcome = asyncio.run(run(MemoryStore(), SqliteStore(path, synchronous="normal")))
    assert outcome.signatures > 500
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


class ForgetsTheFence(MemoryStore):
    async def commit(self, commit: Commit) -> Refused | None:
        return await super().commit(commit._replace(fence=None))


class ForgetsTheGuards(MemoryStore):
    async def commit(self, commit: Commit) -> Refused | None:
        return await super().commit(commit._replace(guards=()))


class WritesHalf(MemoryStore):
    async def commit(self, commit: Commit) -> Refused | None:
        refused = await super().commit(commit)
        if refused is not None and len(commit.puts) > 1 and not refused.fenced:
            await super().commit(commit._replace(puts=commit.puts[:1]))
        return refused


class MistakesAPrefixForABranch(MemoryStore):
    async def branch(self, id: str) -> list[Row]:
        return [row for row in self._rows.values() if row.id.startswith(id) and (row.id == id or row.branch == id)]


class LoadsByWholeRow(MemoryStore):
    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        return {id: row._replace(epoch=None) for id, row in (await super().load(ids)).items()}


@pytest.mark.parametrize(
    "broken", [ForgetsTheFence, ForgetsTheGuards, WritesHalf, MistakesAPrefixForABranch, LoadsByWholeRow]
)
def test_a_broken_store_is_found_out(broken: type[MemoryStore]) -> None:
    with pytest.raises(Difference):
        asyncio.run(run(MemoryStore(), broken(), quiet=2000))


def test_a_memory_store_agrees_with_itself() -> None:
    outcome = asyncio.run(run(MemoryStore(), MemoryStore(), quiet=50))
    assert outcome.rounds > outcome.signatures
