"""A store that counts what is asked of it. Cost is a promise of this project, so tests count requests, not seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from everstep.ports import Beside, Claim, Commit, Due, Page, Query, Refused, Resumed, Store, resumer
from everstep.rows import Row


class Counted:
    """Passes every call on to `store` and counts it.

    Attributes:
        counts: requests by kind: load, branch, resume, commit, due, find, delete; a refused commit counts, for it is
            paid too.
        rows_read, rows_written, rows_deleted: rows that crossed the port; `delete` counts what the store reports.
        characters_read, characters_written: the length of their text, close to bytes for a price.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.single_writer = store.single_writer
        self.folds = store.folds
        self._resumer = resumer(store)
        if self._resumer is not None:
            self.resume = self._resume
        self.reset()

    def reset(self) -> None:
        """Start counting anew."""
        self.counts: Counter[str] = Counter()
        self.rows_read = self.rows_written = self.rows_deleted = 0
        self.characters_read = self.characters_written = 0

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        self.counts["load"] += 1
        rows = await self.store.load(ids)
        self._read(rows.values())
        return rows

    async def branch(self, id: str) -> list[Row]:
        self.counts["branch"] += 1
        rows = await self.store.branch(id)
        self._read(rows)
        return rows

    async def commit(self, commit: Commit) -> Refused | None:
        self.counts["commit"] += 1
        refused = await self.store.commit(commit)
        if refused is None:
            self.rows_written += len(commit.puts)
            self.rows_deleted += len(commit.deletes)
            self.characters_written += sum(_size(put.row) for put in commit.puts)
        return refused

    async def _resume(self, id: str, claim: Claim, beside: Beside | None = None) -> Resumed:
        assert self._resumer is not None
        self.counts["resume"] += 1
        found = await self._resumer.resume(id, claim, beside)
        self._read(found.rows)
        self.rows_written += found.inbox is not None
        return found

    async def due(self, now: int, limit: int) -> list[Due]:
        self.counts["due"] += 1
        found = await self.store.due(now, limit)
        self.rows_read += len(found)
        return found

    async def find(self, query: Query) -> Page:
        self.counts["find"] += 1
        page = await self.store.find(query)
        self._read(page.rows)
        return page

    async def delete(self, origin: str) -> int:
        self.counts["delete"] += 1
        count = await self.store.delete(origin)
        self.rows_deleted += count
        return count

    async def close(self) -> None:
        await self.store.close()

    def _read(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows_read += 1
            self.characters_read += _size(row)


def _size(row: Row) -> int:
    return sum(len(cell) for cell in row if isinstance(cell, str))
