"""The index: which origins there are, which of them are unsettled, and an instant before which nothing there is due.

It holds no record. A search asks the origins it names, in id order, and filters nothing itself that it cannot know;
what it leaves out is only what is certainly not looked for. A sweep asks every origin whose instant has passed, and
writes down what it hears: an alarm that was lost is restored by being asked after.

One entry is one row: a start writes one, the end of a run two (it moves from the live ones to the others).
"""

from __future__ import annotations

import asyncio
import heapq
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from everstep.errors import StoreError
from everstep.ids import origin_of
from everstep.ports import Due, Page, Query
from everstep.promise import SCHEDULE_PREFIX, Kind, State
from everstep.rows import Row

from .peers import Peers, all_of
from .rows import Storage

_log = logging.getLogger("everstep")

_TABLE = (
    "CREATE TABLE IF NOT EXISTS everstep_origin (live INTEGER, origin TEXT, state TEXT, settled_at INTEGER, "
    "bound INTEGER, seq INTEGER, PRIMARY KEY (live, origin)) WITHOUT ROWID"
)
_AT_ONCE = 32
"""Origins asked at a time."""
_MOST = 512
"""Origins asked by one look for what is due: the platform bounds the calls of an invocation; a sweep comes again."""


class Entry(NamedTuple):
    """An origin that may hold what a search looks for."""

    origin: str
    bound: int | None


class Entries:
    """The index's own rows."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        storage.rows(_TABLE)

    def put(self, entry: Mapping[str, Any]) -> None:
        """Take over what an origin says of itself, unless something newer was said."""

        def body() -> None:
            origin, seq = entry["origin"], entry["seq"]
            found = self._storage.rows(
                "SELECT live, seq, state, settled_at, bound FROM everstep_origin WHERE live IN (0, 1) AND origin = ?",
                origin,
            )
            if any(row[1] > seq for row in found):
                return
            live = int(bool(entry.get("live")))
            new = [live, seq, entry.get("state"), entry.get("settled_at"), entry.get("bound")]
            if any([row[0], *row[2:]] == [live, *new[2:]] for row in found) and not entry.get("gone"):
                return
            for row in found:
                if row[0] != live or entry.get("gone"):
                    self._storage.rows("DELETE FROM everstep_origin WHERE live = ? AND origin = ?", row[0], origin)
            if not entry.get("gone"):
                self._storage.rows(
                    "INSERT OR REPLACE INTO everstep_origin VALUES (?, ?, ?, ?, ?, ?)",
                    live, origin, new[2], new[3], new[4], seq,
                )  # fmt: skip

        self._storage.transaction(body)

    def overdue(self, now: int, limit: int) -> list[Entry]:
        """Live origins where something may be due by `now`, the longest first."""
        found = self._storage.rows(
            "SELECT origin, bound FROM everstep_origin WHERE live = 1 AND bound <= ? ORDER BY bound, origin LIMIT ?",
            now, limit,
        )  # fmt: skip
        return [Entry(*row) for row in found]

    def candidates(self, query: Query, after: str | None, limit: int) -> list[str]:
        """Origins in id order, after one of them, that may hold rows of a search."""
        terms = ["origin > ?"]
        values: list[str | int] = [after if after is not None else ""]
        if query.cursor is not None:
            # Rows of `c1` come after `c1-x`, since "-" sorts before ".": whatever begins the cursor may have more.
            begun = [query.cursor[:end] for end in range(1, len(query.cursor) + 1)]
            terms.append("(origin > ? OR origin IN (SELECT value FROM json_each(?)))")
            values += [query.cursor, json.dumps(begun, ensure_ascii=False)]
        if "." in query.prefix:
            terms.append("origin = ?")
            values.append(origin_of(query.prefix))
        elif query.prefix:
            terms.append("origin >= ? AND substr(origin, 1, ?) = ?")
            values += [query.prefix, len(query.prefix), query.prefix]
        if query.kinds == (Kind.SCHEDULE,):
            terms.append("origin >= ? AND origin < ?")
            values += [SCHEDULE_PREFIX, SCHEDULE_PREFIX[:-1] + chr(ord(SCHEDULE_PREFIX[-1]) + 1)]
        if query.roots and query.settled_before is not None:
            terms.append("(live = 1 OR settled_at < ?)")
            values.append(query.settled_before)
        states = [1] if query.state == State.PENDING.value else [0, 1]
        if query.roots and query.state not in (None, State.PENDING.value):
            terms.append("(live = 1 OR state = ?)")
            values.append(query.state)
        one = f"SELECT origin FROM everstep_origin WHERE live = %d AND {' AND '.join(terms)}"
        sql = " UNION ALL ".join(one % live for live in states)
        found = self._storage.rows(f"{sql} ORDER BY origin LIMIT ?", *[v for _ in states for v in values], limit)
        return [row[0] for row in found]


class Index:
    """Searches and sweeps over all origins, in the index's own object."""

    def __init__(self, entries: Entries, peers: Peers) -> None:
        self.entries = entries
        self._peers = peers

    async def due(self, now: int, limit: int) -> list[Due]:
        """What is due anywhere, oldest first; every origin asked restores its alarm. One that does not answer is
        overdue as long as it does not, and keeps nobody else from being asked."""
        found: list[Due] = []
        asked = self.entries.overdue(now, _MOST)
        for at in range(0, len(asked), _AT_ONCE):
            calls = [self._peers.look(one.origin, now, limit) for one in asked[at : at + _AT_ONCE]]
            for answer in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(answer, StoreError):
                    _log.warning("everstep: a sweep passes over %s", answer)
                    continue
                if isinstance(answer, BaseException):
                    raise answer
                found += answer[0]
                self.entries.put(answer[1])
        return sorted(found, key=lambda one: (one.due, one.id))[:limit]

    async def find(self, query: Query) -> Page:
        """Rows of all origins in id order. Raises StoreError."""
        heap: list[Row] = []
        page: list[Row] = []
        waiting: list[str] = []
        last: str | None = None
        exhausted = False
        while len(page) <= query.limit:
            if not waiting and not exhausted:
                waiting = self.entries.candidates(query, last, _AT_ONCE)
                exhausted = len(waiting) < _AT_ONCE
            if waiting and (not heap or heap[0].id >= waiting[0]):
                # Until the first row known comes before every origin not asked, those may hold what comes first.
                last = waiting[-1]
                for rows in await all_of([self._peers.find(origin, query) for origin in waiting]):
                    for row in rows:
                        heapq.heappush(heap, row)
                waiting = []
            elif heap:
                page.append(heapq.heappop(heap))
            elif exhausted:
                break
        rows = page[: query.limit]
        return Page(rows, rows[-1].id if len(page) > len(rows) else None)


def ordered(ids: Sequence[str]) -> dict[str, list[str]]:
    """Ids by their origins, each once."""
    parts: dict[str, list[str]] = {}
    for id in dict.fromkeys(ids):
        parts.setdefault(origin_of(id), []).append(id)
    return parts
