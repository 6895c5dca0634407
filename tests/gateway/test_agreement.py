"""Random requests, one after the other, on a store and on the memory oracle; the other stores' are in tests/adapters.

EVERSTEP_AGREEMENT_REQUESTS=100000 makes it long (`make soak` does), EVERSTEP_AGREEMENT_SEED starts elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from everstep.ports import Commit, Refused
from everstep.rows import Row
from everstep.stores.memory import MemoryStore
from everstep.stores.sqlite import SqliteStore

from .agreement import agree, wanted

REQUESTS = wanted(3_000)


@pytest.mark.parametrize("queue", [False, True], ids=["rows", "queue"])
def test_sqlite_agrees_with_memory(tmp_path: Path, queue: bool) -> None:
    made = count()
    met = agree(lambda: SqliteStore(tmp_path / f"{next(made)}.db", synchronous="off"), queue=queue, requests=REQUESTS)

    assert len({kind for kind, _ in met}) == 21
    assert {status for _, status in met} == {200, 300, 400, 404, 409, 422}


def test_the_requests_reach_every_answer_of_every_kind() -> None:
    met = agree(MemoryStore, queue=False, requests=12_000)

    assert {
        ("promise.register_callback", 422), ("promise.register_listener", 422), ("task.create", 409),
        ("task.create", 422), ("task.acquire", 200), ("task.acquire", 409), ("task.fence", 200), ("task.fence", 409),
        ("task.suspend", 200), ("task.suspend", 300), ("task.suspend", 422), ("task.suspend", 409),
        ("task.fulfill", 200), ("task.fulfill", 409), ("task.release", 200), ("task.halt", 200), ("task.halt", 409),
        ("task.continue", 200), ("task.continue", 409), ("schedule.create", 400), ("schedule.delete", 404),
    } <= set(met)  # fmt: skip


class LosesDeletes(MemoryStore):
    async def commit(self, commit: Commit) -> Refused | None:
        return await super().commit(commit._replace(deletes=()))


class WholePartitionForABranch(MemoryStore):
    async def branch(self, id: str) -> list[Row]:
        return [row._replace(branch=id) for row in self._rows.values() if row.id.startswith(id)]


class ReadsYesterday(MemoryStore):
    """Answers with what stood before the last write of a row, now and then."""

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        found: dict[str, Any] = await super().load(ids)
        return {id: row._replace(task=None) if row.rev % 17 == 16 else row for id, row in found.items()}


@pytest.mark.parametrize("broken", [LosesDeletes, WholePartitionForABranch, ReadsYesterday])
def test_a_broken_store_is_found_out(broken: type[MemoryStore]) -> None:
    with pytest.raises(AssertionError):
        agree(broken, queue=False, requests=12_000)
