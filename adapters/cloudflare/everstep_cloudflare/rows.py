"""The rows of one origin in one object's SQLite: a record is one row of one tree.

Theory. The platform bills each row written, an index's rows too. So the table is its own primary key (a rowid would be
a second tree), and the only index is of the rows that somebody must look at, by a flag that stays as it is while a run
goes from lease to timer to lease. An iteration of a countdown writes three rows: acquire, step, suspend.

Everything is synchronous, and a commit is one `transactionSync` (rules F1, W4): whoever holds this object's thread is
alone with its rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from everstep.ports import Commit, Due, Put, Query, Refused
from everstep.promise import Kind, State
from everstep.rows import Row


class Storage(Protocol):
    """What an object's storage can do: SQL, transactions, one alarm."""

    def rows(self, sql: str, *values: str | int | None) -> list[list[Any]]:
        """Run a statement and return its rows, as text, integers and None."""
        ...

    def transaction(self, body: Callable[[], None]) -> None:
        """Run `body`; what it wrote, the alarm included, is durable whole or not at all."""
        ...

    def set_alarm(self, at: int) -> None:
        """Wake the object at `at` (milliseconds), instead of whenever it was to be woken; part of a transaction."""
        ...

    async def flush(self) -> None:
        """Wait until everything written so far is durable."""
        ...

    async def alarm(self) -> int | None:
        """When the object is to be woken; None while it is awake by its alarm."""
        ...

    async def delete_all(self) -> None:
        """Leave nothing behind: no row, no table, no alarm."""
        ...


_WIDTH = len(Row._fields)
_COLUMNS = ", ".join(Row._fields)
_INTEGERS = ("rev", "due", "lease", "epoch", "n", "timeout_at", "created_at", "settled_at")
_TABLE = (
    "CREATE TABLE IF NOT EXISTS everstep_row ("
    + ", ".join(f"{name} {'INTEGER' if name in _INTEGERS else 'TEXT'}" for name in Row._fields)
    + ", look INTEGER, PRIMARY KEY (id)) WITHOUT ROWID"
)
_LOOK = "CREATE INDEX IF NOT EXISTS everstep_look ON everstep_row (look) WHERE look IS NOT NULL"
_HOME = (
    "CREATE TABLE IF NOT EXISTS everstep_home "
    "(one INTEGER PRIMARY KEY, origin TEXT, live INTEGER, bound INTEGER, seq INTEGER)"
)
SCHEMA = (_TABLE, _LOOK, _HOME)
_INSERT = f"INSERT INTO everstep_row VALUES ({', '.join('?' * (_WIDTH + 1))})"
_UPDATE = f"UPDATE everstep_row SET {', '.join(f'{name} = ?' for name in Row._fields[1:])} WHERE id = ?"
# SQLite writes an index's row anew whenever a SET names one of its columns, changed or not.
_UPDATE_LOOK = f"UPDATE everstep_row SET look = ?, {', '.join(f'{name} = ?' for name in Row._fields[1:])} WHERE id = ?"
_STANDING = "SELECT id, rev, look FROM everstep_row WHERE id IN (SELECT value FROM json_each(?))"
_LOAD = f"SELECT {_COLUMNS} FROM everstep_row WHERE id IN (SELECT value FROM json_each(?))"
_BY_ID = f"SELECT {_COLUMNS} FROM everstep_row WHERE id = ?"
_BRANCH = (
    f"SELECT {_COLUMNS} FROM everstep_row WHERE id = ?1 UNION ALL "
    f"SELECT {_COLUMNS} FROM everstep_row WHERE id > ?1 || '.' AND id < ?1 || '/' AND branch = ?1"
)
_DUE = "SELECT id, due FROM everstep_row WHERE look IS NOT NULL AND due <= ? ORDER BY due, id LIMIT ?"
_NEXT = "SELECT min(due) FROM everstep_row WHERE look IS NOT NULL"
_LEASED = "SELECT id, task FROM everstep_row WHERE look IS NOT NULL AND lease IS NOT NULL"
_DELETE = "DELETE FROM everstep_row WHERE id IN (SELECT value FROM json_each(?))"
_PENDING = State.PENDING.value


class Rows:
    """One origin's rows. Methods raise what the storage raises."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.exist = bool(storage.rows("SELECT 1 FROM sqlite_master WHERE name = 'everstep_row'"))

    def create(self) -> None:
        """Make the table. An object that was only asked keeps nothing, and costs nothing."""
        for statement in SCHEMA:
            self._storage.rows(statement)
        self.exist = True

    def _select(self, sql: str, *values: str | int) -> list[list[Any]]:
        return self._storage.rows(sql, *values) if self.exist else []

    def load(self, ids: Sequence[str]) -> list[Row]:
        if len(ids) == 1:
            return _made(self._select(_BY_ID, ids[0]))
        return _made(self._select(_LOAD, _json(ids)))

    def branch(self, id: str) -> list[Row]:
        return _made(self._select(_BRANCH, id))

    def apply(self, commit: Commit) -> Refused | None:
        """Write all of it or none; to be called inside a transaction, so that nothing comes between."""
        refused, looks = self._check(commit)
        if refused is not None:
            return refused
        if not self.exist:
            self.create()
        for put in commit.puts:
            self._put(put, looks.get(put.row.id))
        if commit.deletes:
            self._storage.rows(_DELETE, _json(commit.deletes))
        return None

    def _check(self, commit: Commit) -> tuple[Refused | None, dict[str, int | None]]:
        """Whether every condition holds, and which of the rows are looked at."""
        fenced = False
        if commit.fence is not None:
            holder = self._select("SELECT lease FROM everstep_row WHERE id = ?", commit.fence.id)
            fenced = not holder or holder[0][0] != commit.fence.version
        expected = [(put.row.id, put.expect) for put in commit.puts] + list(commit.guards)
        if not expected:
            return (Refused(True, {}) if fenced else None), {}
        standing = {id: (rev, look) for id, rev, look in self._select(_STANDING, _json([i for i, _ in expected]))}
        wrong = [id for id, rev in expected if standing.get(id, (0, None))[0] != rev]
        if fenced or wrong:
            found = {row.id: row for row in self.load(wrong)} if wrong else {}
            return Refused(fenced, {id: found.get(id) for id in wrong}), {}
        return None, {id: look for id, (_, look) in standing.items()}

    def _put(self, put: Put, look: int | None) -> None:
        row = put.row
        wanted = None if row.due is None else 1
        if put.expect == 0:
            self._storage.rows(_INSERT, *row, wanted)
        elif wanted == look:
            self._storage.rows(_UPDATE, *row[1:], row.id)
        else:
            self._storage.rows(_UPDATE_LOOK, wanted, *row[1:], row.id)

    def due(self, now: int, limit: int) -> list[Due]:
        """Rows with `due <= now`, oldest first."""
        return [Due(id, at) for id, at in self._select(_DUE, now, limit)]

    def next_due(self) -> int | None:
        """When somebody must look at one of these rows next."""
        found = self._select(_NEXT)
        return found[0][0] if found else None

    def leased(self) -> list[tuple[str, str]]:
        """Who holds what: ids of leased rows, and their tasks as text."""
        return [(id, task) for id, task in self._select(_LEASED)]

    def home(self) -> list[Any] | None:
        """The origin whose object this is, and what the index knows of it: live, bound, seq."""
        return next(iter(self._select("SELECT origin, live, bound, seq FROM everstep_home")), None)

    def put_home(self, origin: str, live: bool, bound: int | None, seq: int) -> None:
        self._storage.rows("INSERT OR REPLACE INTO everstep_home VALUES (1, ?, ?, ?, ?)", origin, int(live), bound, seq)

    def root_pending(self, origin: str) -> bool:
        found = self._select("SELECT state FROM everstep_row WHERE id = ?", origin)
        return bool(found) and found[0][0] == _PENDING

    def root(self, origin: str) -> Row | None:
        return next(iter(self.load([origin])), None)

    def live(self) -> bool:
        """Whether anything here is pending, or must be looked at."""
        return bool(
            self._select("SELECT 1 FROM everstep_row WHERE look IS NOT NULL LIMIT 1")
            or self._select(f"SELECT 1 FROM everstep_row WHERE state = '{_PENDING}' LIMIT 1")
        )

    def count(self) -> int:
        return int(self._select("SELECT count(*) FROM everstep_row")[0][0]) if self.exist else 0

    def find(self, query: Query) -> list[Row]:
        """This origin's part of a search, in id order, one row more than a page holds."""
        sql, values = find_sql(query)
        return _made(self._select(sql, *values))


def find_sql(query: Query) -> tuple[str, list[str | int]]:
    """The statement of a search in one origin, and its values."""
    terms: list[str] = []
    values: list[str | int] = []

    def require(term: str, *given: str | int) -> None:
        terms.append(term)
        values.extend(given)

    if query.cursor is not None:
        require("id > ?", query.cursor)
    if query.prefix:
        require("substr(id, 1, ?) = ?", len(query.prefix), query.prefix)
    if query.kinds:
        require("kind IN (SELECT value FROM json_each(?))", _json(query.kinds))
    else:
        require(f"kind <> '{Kind.SCHEDULE}'")
    if query.state is not None:
        require("state = ?", query.state)
    if query.settled_before is not None:
        require("settled_at < ?", query.settled_before)
    if query.roots:
        require("instr(id, '.') = 0")
    for name, value in query.tags.items():
        # Not by a JSON path: a tag's name may hold what a path cannot.
        require("EXISTS (SELECT 1 FROM json_each(tags) AS tag WHERE tag.key = ? AND tag.value = ?)", name, value)
    sql = f"SELECT {_COLUMNS} FROM everstep_row WHERE {' AND '.join(terms)} ORDER BY id LIMIT ?"
    return sql, [*values, query.limit + 1]


def _made(rows: list[list[Any]]) -> list[Row]:
    return [Row._make(row) for row in rows]


def _json(values: Sequence[str]) -> str:
    return json.dumps(list(values), ensure_ascii=False)
