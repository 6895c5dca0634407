"""Eight clients at once, every kind of request but searches: what they are answered is what the kernel would have
answered them one after the other, on every store; and the checker itself is held to its word.

EVERSTEP_HISTORIES=2000 makes it long (`make soak` does), EVERSTEP_HISTORIES_SEED starts elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from everstep.ports import Commit, Refused, Store
from everstep.rows import Row
from everstep.stores.memory import MemoryStore
from everstep.stores.sqlite import SqliteStore

from . import linear
from .histories import CLIENTS, HISTORIES, NotLinearizable, run
from .linear import Operation


@pytest.mark.parametrize("queue", [False, True], ids=["rows", "queue"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_histories_of_eight_clients_are_linearizable(tmp_path: Path, kind: str, queue: bool) -> None:
    store: Store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "everstep.db", synchronous="off")

    assert run(store, queue=queue) > HISTORIES * CLIENTS


class LosesUpdates(MemoryStore):
    """Writes over what others wrote since."""

    async def commit(self, commit: Commit) -> Refused | None:
        refused = await super().commit(commit)
        if refused is None or refused.fenced:
            return refused
        puts = tuple(
            put._replace(expect=refused.found[put.row.id].rev if refused.found[put.row.id] else 0)  # type: ignore[union-attr]
            if put.row.id in refused.found
            else put
            for put in commit.puts
        )
        return await super().commit(commit._replace(puts=puts))


class ForgetsTheFence(MemoryStore):
    async def commit(self, commit: Commit) -> Refused | None:
        return await super().commit(commit._replace(fence=None))


class WritesHalf(MemoryStore):
    async def commit(self, commit: Commit) -> Refused | None:
        if len(commit.puts) > 1:
            await super().commit(commit._replace(puts=commit.puts[:1], fence=None))
        return await super().commit(commit)


class ReadsStale(MemoryStore):
    """Answers every eighth read with what stood one read ago."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.before: dict[str, Row] = {}

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        fresh = await super().load(ids)
        self.reads += 1
        stale = {**fresh, **{id: self.before[id] for id in fresh if id in self.before}}
        self.before.update(fresh)
        return stale if self.reads % 8 == 0 else fresh


LEASES = ("promise.get", "promise.create", "task.create", "task.fence", "task.release")


@pytest.mark.parametrize(
    ("broken", "only", "first"),
    [(LosesUpdates, (), 6), (ForgetsTheFence, LEASES, 29), (WritesHalf, (), 6), (ReadsStale, (), 6)],
)
def test_a_broken_store_is_found_out(broken: Callable[[], Store], only: Collection[str], first: int) -> None:
    """`first` is a seed that finds it soon; the others are for a day when it does not any more."""

    def many() -> None:
        for seed in range(first, first + 80):
            run(broken(), queue=False, count=100, seed=seed, only=only)

    with pytest.raises(NotLinearizable):
        many()


def test_the_checker_refuses_an_answer_out_of_order() -> None:
    def envelope(kind: str, **data: Any) -> dict[str, Any]:
        return {"kind": kind, "head": {"corrId": "c", "version": "2026-04-01"}, "data": data}

    empty = linear.begin({})
    create = envelope("promise.create", id="p", timeoutAt=2_000_000, param={}, tags={})
    get = envelope("promise.get", id="p")
    made, there = linear.answer(empty, create, 1)
    found, _ = linear.answer(there, get, 1)
    absent, _ = linear.answer(empty, get, 1)

    def ok(*history: Operation) -> bool:
        return linear.check(empty, list(history), 1, None).ok

    assert ok(Operation(1, 2, create, made), Operation(3, 4, get, found))
    assert not ok(Operation(1, 2, create, made), Operation(3, 4, get, absent))
    assert ok(Operation(1, 4, create, made), Operation(2, 3, get, absent))
    assert ok(Operation(1, 4, create, made), Operation(2, 3, get, found))
    assert not ok(Operation(1, 6, create, made), Operation(2, 3, get, found), Operation(4, 5, get, absent))
    assert not linear.check(empty, [Operation(1, 2, create, made)], 1, {}).ok
    assert linear.check(empty, [Operation(1, 2, create, made)], 1, linear.shown(there, 1)).ok
