"""The oracle: rows in a dictionary, one thread, nothing clever. Every other store is compared with this one.

`_due` and `_origins` repeat what the rows say, so that a simulation with many runs stays fast; only `_set` and `_drop`
touch them. Nothing here awaits, so each method is atomic on its loop.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from everstep.ids import origin_of
from everstep.ports import Commit, Due, Page, Query, Refused
from everstep.promise import Kind
from everstep.rows import Row


class MemoryStore:
    """Rows of this process; gone with it."""

    single_writer = True
    folds = True

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._origins: dict[str, set[str]] = {}
        self._due: dict[str, int] = {}

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        return {id: self._rows[id] for id in ids if id in self._rows}

    async def branch(self, id: str) -> list[Row]:
        prefix = f"{id}."
        own = [self._rows[id]] if id in self._rows else []
        near = (self._rows[other] for other in self._origins.get(origin_of(id), ()) if other.startswith(prefix))
        return own + [row for row in near if row.branch == id]

    async def commit(self, commit: Commit) -> Refused | None:
        fence = commit.fence
        fenced = False
        if fence is not None:
            holder = self._rows.get(fence.id)
            fenced = holder is None or holder.lease != fence.version
        expected = [(put.row.id, put.expect) for put in commit.puts] + list(commit.guards)
        found = {id: self._rows.get(id) for id, rev in expected if self._rev(id) != rev}
        if fenced or found:
            return Refused(fenced, found)
        for put in commit.puts:
            self._set(put.row)
        for id in commit.deletes:
            self._drop(id)
        return None

    async def due(self, now: int, limit: int) -> list[Due]:
        due = [Due(id, at) for id, at in self._due.items() if at <= now]
        return sorted(due, key=lambda entry: (entry.due, entry.id))[:limit]

    async def find(self, query: Query) -> Page:
        rows = [self._rows[id] for id in sorted(self._rows) if matches(self._rows[id], query)]
        page = rows[: query.limit]
        return Page(page, page[-1].id if len(rows) > len(page) else None)

    async def delete(self, origin: str) -> int:
        ids = list(self._origins.get(origin, ()))
        for id in ids:
            self._drop(id)
        return len(ids)

    async def close(self) -> None:
        """Nothing to release; the rows stay for whoever else holds this store."""

    def _rev(self, id: str) -> int:
        row = self._rows.get(id)
        return 0 if row is None else row.rev

    def _set(self, row: Row) -> None:
        self._drop(row.id)
        self._rows[row.id] = row
        self._origins.setdefault(origin_of(row.id), set()).add(row.id)
        if row.due is not None:
            self._due[row.id] = row.due

    def _drop(self, id: str) -> None:
        if self._rows.pop(id, None) is None:
            return
        self._due.pop(id, None)
        siblings = self._origins[origin_of(id)]
        siblings.discard(id)
        if not siblings:
            del self._origins[origin_of(id)]


def matches(row: Row, query: Query) -> bool:
    """Whether a search finds a row: what every store's search means."""
    tags = json.loads(row.tags) if row.tags is not None and query.tags else {}
    return (
        (query.cursor is None or row.id > query.cursor)
        and row.id.startswith(query.prefix)
        and (row.kind in query.kinds if query.kinds else row.kind != Kind.SCHEDULE)
        and (query.state is None or row.state == query.state)
        and (not query.roots or "." not in row.id)
        and (query.settled_before is None or (row.settled_at is not None and row.settled_at < query.settled_before))
        and all(tags.get(name) == value for name, value in query.tags.items())
    )


_shared: dict[str, MemoryStore] = {}


def open_memory(name: str) -> MemoryStore:
    """A private store, or the one all of this process share under `name`."""
    return _shared.setdefault(name, MemoryStore()) if name else MemoryStore()
