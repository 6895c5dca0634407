"""One SQLite file, any number of processes. A step is one statement and one commit of the log.

Theory. A step is appended to the table and entered in the index of ids: two pages. (One would do if the table were its
primary key's tree, but there each search reads whole every large row that it passes.) A branch is a range of ids, read
in order and filtered (rule I4). A row is in the due index only while somebody must look at it, in the roots index only
if it is one. A commit of one row is a single INSERT or UPDATE whose WHERE carries the fence and the expectation (rule
F1), without BEGIN; when it changes nothing, and for any larger commit, `BEGIN IMMEDIATE` reads, decides and writes.
SQLite rewrites every index that a SET mentions, so the UPDATE of a row that stays pending mentions only the due one's
columns.

Everything runs on the calling loop's own thread and never suspends (rule B4). A second thread gets a connection of its
own, and so does a forked child, whose inherited ones are left alone.
"""

from __future__ import annotations

import json
import os
import sqlite3
import weakref
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import itemgetter
from threading import get_ident
from typing import TYPE_CHECKING, Any

from everstep.errors import StoreCorrupted, StoreError
from everstep.ports import Commit, Due, Fence, Page, Put, Query, Refused
from everstep.promise import State
from everstep.rows import Row

from .sqlite_file import Place
from .sqlite_find import find_sql, has_tags

if TYPE_CHECKING:
    from everstep.codec import Codec

_WIDTH = len(Row._fields)
_COLUMNS = ", ".join(Row._fields)
_MARKS = ", ".join("?" * _WIDTH)

_INSERT = f"INSERT INTO everstep_rows VALUES ({_MARKS}) ON CONFLICT DO NOTHING"
_HELD = " AND EXISTS (SELECT 1 FROM everstep_rows WHERE id = ? AND lease = ?)"


def _insert_fenced(*columns: str) -> str:
    """An INSERT whose rev, the last column, is there only while the fence holds; without it the row is ignored.

    INSERT ... SELECT ... WHERE EXISTS says the same, and takes its row through a table of its own, because it reads the
    table that it writes.
    """
    held = "(SELECT ? FROM everstep_rows WHERE id = ? AND lease = ?)"
    values = ", ".join([held if name == "rev" else "?" for name in columns])
    return f"INSERT OR IGNORE INTO everstep_rows ({', '.join(columns)}) VALUES ({values})"


def _cells(*columns: str) -> Callable[[Row], tuple[Any, ...]]:
    return itemgetter(*map(Row._fields.index, columns))


_STEP = ("id", "branch", "kind", "state", "epoch", "n", "param", "value", "created_at", "settled_at", "rev")
_NO_STEP = tuple([name for name in Row._fields if name not in _STEP])
_ROW = (*[name for name in Row._fields if name != "rev"], "rev")
_INSERT_STEP, _of_step = _insert_fenced(*_STEP), _cells(*_STEP)
_INSERT_FENCED, _of_row = _insert_fenced(*_ROW), _cells(*_ROW)
_of_no_step, _NOTHING = _cells(*_NO_STEP), (None,) * len(_NO_STEP)


def _assign(but: tuple[str, ...]) -> str:
    return ", ".join(f"{name} = ?" for name in Row._fields if name not in but)


_KEEP = (
    f"UPDATE everstep_rows SET {_assign(but=('id', 'kind', 'state', 'settled_at'))} "
    "WHERE id = ? AND rev = ? AND kind = ? AND state = ?"
)
_KEEP_FENCED = _KEEP + _HELD
_CHANGE = f"UPDATE everstep_rows SET {_assign(but=('id',))} WHERE id = ? AND rev = ?"
_CHANGE_FENCED = _CHANGE + _HELD
_REPLACE = f"INSERT OR REPLACE INTO everstep_rows VALUES ({_MARKS})"

_BY_ID = f"SELECT {_COLUMNS} FROM everstep_rows WHERE id = ?"
_BRANCH = (
    f"SELECT {_COLUMNS} FROM everstep_rows WHERE id = ? UNION ALL "
    f"SELECT {_COLUMNS} FROM everstep_rows WHERE id > ? || '.' AND id < ? || '/' AND branch = ?"
)
_DUE = "SELECT id, due FROM everstep_rows WHERE due <= ? ORDER BY due, id LIMIT ?"
_DELETE = "DELETE FROM everstep_rows WHERE id = ?"
_DELETE_MANY = "DELETE FROM everstep_rows WHERE id IN (SELECT value FROM json_each(?))"
_DELETE_ORIGIN = "DELETE FROM everstep_rows WHERE id > ? || '.' AND id < ? || '/'"

_PENDING = State.PENDING.value
_CHUNK = 500


class SqliteStore:
    """Rows in one SQLite file in WAL mode, shared safely by processes and threads.

    Args:
        path: the file; it is created where it is missing, its folder is not.
        synchronous: "full" syncs every commit to disk; "normal" may lose the last commits when power fails, and is
            then still consistent. A killed process loses nothing in either.
        timeout: seconds to wait for another process's write before StoreUnavailable.

    Raises:
        StoreError: there is no such folder, or the file belongs to another program.
        StoreReadOnly, StoreCorrupted, StoreTooNew, StoreUnavailable: what they say.
    """

    single_writer = True
    folds = True

    def __init__(self, path: str | os.PathLike[str], *, synchronous: str = "full", timeout: float = 5.0) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self._place = Place(self.path, synchronous, timeout)
        self._closed = False
        self._damaged: str | None = None
        self._cursors: dict[int, sqlite3.Cursor] = {}
        self._cursor()
        _open.add(self)

    def codec(self) -> Codec:
        """Payloads above the limit go into files beside the database."""
        from everstep.blobs import DirectoryBlobs
        from everstep.codec import Codec

        return Codec(blobs=DirectoryBlobs(f"{self.path}.blobs"))

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        cursor = self._cursor()
        if len(ids) == 1:
            found = self._select(cursor, _BY_ID, (ids[0],))
        elif len(ids) <= _CHUNK:
            found = self._select(cursor, _by_ids(len(ids)), tuple(ids))
        else:
            found = self._load_many(cursor, ids)
        return {row[0]: row for row in found}

    async def branch(self, id: str) -> list[Row]:
        return self._select(self._cursor(), _BRANCH, (id, id, id, id))

    async def commit(self, commit: Commit) -> Refused | None:
        cursor = self._cursors.get(get_ident()) or self._connect()
        _, puts, deletes, fence, guards = commit
        try:
            if len(puts) == 1 and not deletes and not guards and _put_one(cursor, puts[0], fence):
                return None
            return _transact(cursor, commit)
        except sqlite3.Error as error:
            raise self._place.trouble(error, writing=True) from error
        except (UnicodeError, OverflowError) as error:
            ids = ", ".join(repr(put.row.id) for put in puts)
            raise StoreError(f"{self.path}: cannot write {ids}: {error}") from error

    async def due(self, now: int, limit: int) -> list[Due]:
        try:
            return list(map(Due._make, self._cursor().execute(_DUE, (now, limit)).fetchall()))
        except sqlite3.Error as error:
            raise self._place.trouble(error) from error

    async def find(self, query: Query) -> Page:
        sql, parameters = find_sql(query, _COLUMNS)
        rows = self._select(self._cursor(), sql, parameters)
        page = rows[: query.limit]
        return Page(page, page[-1].id if len(rows) > len(page) else None)

    async def delete(self, origin: str) -> int:
        cursor = self._cursor()
        try:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                count = cursor.execute(_DELETE, (origin,)).rowcount
                count += cursor.execute(_DELETE_ORIGIN, (origin, origin)).rowcount
                cursor.execute("COMMIT")
            except BaseException:
                _rollback(cursor)
                raise
        except sqlite3.Error as error:
            raise self._place.trouble(error, writing=True) from error
        return count

    async def close(self) -> None:
        """Close every connection; the last process to do so folds the log into the file."""
        self._closed = True
        while self._cursors:
            self._cursors.popitem()[1].connection.close()

    def _cursor(self) -> sqlite3.Cursor:
        cursor = self._cursors.get(get_ident())
        return self._connect() if cursor is None else cursor

    def _connect(self) -> sqlite3.Cursor:
        if self._closed:
            raise StoreError(f"{self.path}: this store was closed")
        connection = self._place.connect()
        connection.create_function("everstep_has_tags", 3, self._has_tags, deterministic=True)
        cursor = self._cursors[get_ident()] = connection.cursor()
        return cursor

    def _has_tags(self, id: str, text: str | None, wanted: str) -> bool:
        try:
            return has_tags(text, wanted)
        except (ValueError, AttributeError):
            self._damaged = id  # SQLite replaces the exception by one that says nothing
            raise

    def _select(self, cursor: sqlite3.Cursor, sql: str, parameters: Sequence[Any]) -> list[Row]:
        try:
            return _rows(cursor.execute(sql, parameters))
        except sqlite3.Error as error:
            culprit, self._damaged = self._damaged, None
            if culprit is None and "decode" in str(error):
                culprit = _undecodable(cursor.connection, sql, parameters)
            if culprit is None:
                raise self._place.trouble(error) from error
            raise StoreCorrupted(f"{self.path}: the row of {culprit!r} cannot be read: {error}") from error
        except UnicodeError as error:
            raise StoreError(f"{self.path}: cannot look for {parameters!r}: {error}") from error

    def _load_many(self, cursor: sqlite3.Cursor, ids: Sequence[str]) -> list[Row]:
        """Several statements, one snapshot."""
        try:
            cursor.execute("BEGIN")
        except sqlite3.Error as error:
            raise self._place.trouble(error) from error
        try:
            parts = [tuple(ids[at : at + _CHUNK]) for at in range(0, len(ids), _CHUNK)]
            return [row for part in parts for row in self._select(cursor, _by_ids(len(part)), part)]
        finally:
            _rollback(cursor)


def _rows(found: Iterable[tuple[Any, ...]]) -> list[Row]:
    """Rows of tuples, built without a Python call each: a branch may hold a hundred thousand."""
    return list(map(tuple.__new__, repeat(Row), found))


def _by_ids(count: int) -> str:
    return f"SELECT {_COLUMNS} FROM everstep_rows WHERE id IN ({', '.join('?' * count)})"


def _put_one(cursor: sqlite3.Cursor, put: Put, fence: Fence | None) -> bool:
    """The hot path: one statement that holds its own conditions. False: nothing was written, and why is unknown yet."""
    row, expect = put
    if expect == 0:
        if fence is None:
            return cursor.execute(_INSERT, row).rowcount == 1
        if _of_no_step(row) == _NOTHING:
            # A step: a NULL that is bound costs more than a value, and one that is left out costs nothing.
            return cursor.execute(_INSERT_STEP, _of_step(row) + fence[:2]).rowcount == 1
        return cursor.execute(_INSERT_FENCED, _of_row(row) + fence[:2]).rowcount == 1
    held = () if fence is None else fence[:2]
    if row[3] == _PENDING:
        sql = _KEEP if fence is None else _KEEP_FENCED
        return cursor.execute(sql, (*_kept(row), row[0], expect, row[2], row[3], *held)).rowcount == 1
    sql = _CHANGE if fence is None else _CHANGE_FENCED
    return cursor.execute(sql, (*row[1:], row[0], expect, *held)).rowcount == 1


def _kept(row: Row) -> tuple[Any, ...]:
    """The cells that `_KEEP` sets: id, kind and state stay, and a pending row has no settled_at."""
    return (row[1], *row[4:13], *row[14:])


def _transact(cursor: sqlite3.Cursor, commit: Commit) -> Refused | None:
    cursor.execute("BEGIN IMMEDIATE")
    try:
        refused = _refusal(cursor, commit)
        if refused is None:
            cursor.executemany(_REPLACE, [tuple(put.row) for put in commit.puts])
            if commit.deletes:
                cursor.execute(_DELETE_MANY, (json.dumps(commit.deletes),))
        cursor.execute("COMMIT")
        return refused
    except BaseException:
        _rollback(cursor)
        raise


def _refusal(cursor: sqlite3.Cursor, commit: Commit) -> Refused | None:
    fenced = False
    if commit.fence is not None:
        holder = cursor.execute("SELECT lease FROM everstep_rows WHERE id = ?", (commit.fence.id,)).fetchone()
        fenced = holder is None or holder[0] != commit.fence.version
    found: dict[str, Row | None] = {}
    for id, expect in [*((put.row.id, put.expect) for put in commit.puts), *commit.guards]:
        standing = cursor.execute("SELECT rev FROM everstep_rows WHERE id = ?", (id,)).fetchone()
        if (0 if standing is None else standing[0]) != expect:
            found[id] = None if standing is None else Row._make(cursor.execute(_BY_ID, (id,)).fetchone())
    return Refused(fenced, found) if fenced or found else None


def _rollback(cursor: sqlite3.Cursor) -> None:
    if cursor.connection.in_transaction:
        cursor.execute("ROLLBACK")


def _undecodable(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> str | None:
    """The id of the first row whose text is not UTF-8."""
    connection.text_factory = bytes
    try:
        for row in connection.execute(sql, parameters):
            try:
                for cell in row:
                    if isinstance(cell, bytes):
                        cell.decode()
            except UnicodeDecodeError:
                return str(row[0].decode(errors="replace"))
    finally:
        connection.text_factory = str
    return None


_open: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
_inherited: list[object] = []


def _forked() -> None:
    """A connection must not cross a fork: the child keeps it unclosed, for closing could fold the parent's log."""
    for store in _open:
        _inherited.extend(store._cursors.values())
        store._cursors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
