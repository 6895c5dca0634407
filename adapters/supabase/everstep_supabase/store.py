"""Rows in Postgres over a direct connection: one round trip for each request, whatever the history.

Theory. A commit of one row is one statement that carries its own conditions: the fence is a read of the holder's row
FOR SHARE inside the INSERT (rules F1, B4), so that a take-over, which updates that row, and a step of the old holder
wait for each other, and whoever waited looks again. When that statement writes nothing, and for any larger commit,
`everstep.commit` locks, checks, writes or tells what is in the way, in one call. A statement that the server aborted as
a deadlock has changed nothing and is sent again.

The rest is in sql/everstep.sql, which works the same behind PostgREST (rpc.py).
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg

from everstep.errors import StoreUnavailable
from everstep.ports import Beside, Claim, Commit, Due, Fence, Page, Put, Query, Refused, Resumed
from everstep.rows import Row

from .connections import Connection, Pool, trouble
from .listening import ListeningWaker
from .migration import apply_if_absent
from .rows import (
    COLUMNS,
    Search,
    cells,
    claim_parameters,
    commit_request,
    escaped,
    inbox_from,
    refusal,
    row_from,
    text_of,
    unescaped,
)
from .transactions import commit_with, end_all, taken
from .waker import PostgresWaker

T = TypeVar("T")

_COLUMNS = ", ".join(COLUMNS)


def _marks(count: int, start: int = 1) -> str:
    return ", ".join(f"${n}" for n in range(start, start + count))


_INTEGERS = ("rev", "due", "lease", "epoch", "n", "timeout_at", "created_at", "settled_at")


def _typed(names: Sequence[str]) -> str:
    """A SELECT list gives a parameter no type of its own, as VALUES does."""
    return ", ".join(f"${n}::{'bigint' if name in _INTEGERS else 'text'}" for n, name in enumerate(names, 1))


_WIDTH = len(COLUMNS)
_STEP = ("id", "branch", "kind", "state", "rev", "epoch", "n", "param", "value", "created_at", "settled_at")
_INSERT = f"insert into everstep.rows ({_COLUMNS}) values ({_marks(_WIDTH)}) on conflict (id) do nothing"


def _insert_fenced(names: Sequence[str]) -> str:
    held = f"f.id = ${len(names) + 1} and f.lease = ${len(names) + 2}"
    return (
        f"insert into everstep.rows ({', '.join(names)}) select {_typed(names)} "
        f"from everstep.rows f where {held} for share of f on conflict (id) do nothing"
    )


_INSERT_FENCED = _insert_fenced(COLUMNS)
_INSERT_STEP = _insert_fenced(_STEP)
_SET = ", ".join(f"{name} = ${n}" for n, name in enumerate(COLUMNS[1:], 2))
_UPDATE = f"update everstep.rows r set {_SET} where r.id = $1 and r.rev = ${_WIDTH + 1}"
_UPDATE_HELD = f"{_UPDATE} and r.lease = ${_WIDTH + 2}"
_UPDATE_FENCED = (
    f"with f as materialized (select from everstep.rows where id = ${_WIDTH + 2} and lease = ${_WIDTH + 3} for share) "
    f"{_UPDATE} and exists (select from f)"
)
_COMMIT = "select everstep.commit($1)"
_LOAD = f"select {_COLUMNS} from everstep.rows where id = any ($1::text[])"
_BRANCH = (
    f"select {_COLUMNS} from everstep.rows where id = $1 union all "
    f"select {_COLUMNS} from everstep.rows where id > $1 || '.' and id < $1 || '/' and branch = $1"
)
_RESUME = (
    "select inbox, "
    + ", ".join(f"(part).{name}" for name in COLUMNS)
    + " from everstep.resume($1, $2, $3, $4, $5, $6, $7::text[])"
).encode()
_DUE = "select id, due from everstep.rows where due <= $1 order by due, id limit $2"
_FIND = f"select {_COLUMNS} from everstep.find($1)"
_DELETE = "select everstep.delete_origin($1)"
_POKE = b"select everstep.poke($1)"
_ATTEMPTS = 8


class PostgresStore:
    """Rows in the schema `everstep` of one database, shared by any number of processes.

    Args:
        url: `postgresql://user:password@host/database`, with `?pool=` and `?prepare=` (see `Options`). A database that
            has no schema `everstep` gets it, where the role may create one.

    Raises:
        InvalidArgument: an option of the URL is none.
    """

    single_writer = True
    folds = True

    def __init__(self, url: str) -> None:
        self.pool = Pool(url)
        self._checked = False
        self.staged: dict[tuple[str, asyncio.AbstractEventLoop], Connection] = {}
        _open.add(self)

    @property
    def name(self) -> str:
        """Host, port and database, for messages."""
        return self.pool.options.name

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        if not ids:
            return {}
        wanted = [escaped(id) for id in ids]
        rows = await self._read(lambda connection: _rows(connection, _LOAD, (wanted,)))
        return {row[0]: row for row in rows}

    async def branch(self, id: str) -> list[Row]:
        return await self._read(lambda connection: _rows(connection, _BRANCH, (escaped(id),)))

    async def resume(self, id: str, claim: Claim, beside: Beside | None = None) -> Resumed:
        parameters = claim_parameters(id, claim, beside)

        async def ask(connection: Connection) -> list[tuple[Any, ...]]:
            return await (await connection.execute(_RESUME, parameters)).fetchall()

        found = await self._write(ask)
        return Resumed([row_from(part[1:]) for part in found], inbox_from(found[0][0]) if found else None)

    async def commit(self, commit: Commit) -> Refused | None:
        waiting = taken(self, commit)
        if waiting is not None:
            connection, keep = waiting
            if keep:
                return await self._with_rows(connection, commit)
            await connection.close()
        return await self._write(lambda connection: commit_on(connection, commit))

    async def _with_rows(self, connection: Connection, commit: Commit) -> Refused | None:
        """One database call as far as the outside can tell: the checkpoint and the step's own rows."""
        return await commit_with(connection, commit, self.name)

    async def due(self, now: int, limit: int) -> list[Due]:
        async def ask(connection: Connection) -> list[Due]:
            found = await (await connection.execute(_DUE, (now, limit))).fetchall()
            return [Due(unescaped(id), due) for id, due in found]

        return await self._read(ask)

    async def find(self, query: Query) -> Page:
        search = Search(query)
        while search.page is None:
            request = search.request
            search.take(await self._read(lambda connection, request=request: _rows(connection, _FIND, (request,))))  # type: ignore[misc]
        return search.page

    async def delete(self, origin: str) -> int:
        count: int = await self._write(lambda connection: _one(connection, _DELETE, (escaped(origin),)))
        return count

    async def poke(self, id: str) -> None:
        """Ring the doorbell of one row, or of none in particular: "". It is no request of a run."""
        async with self.pool.connection() as connection:
            try:
                await connection.execute(_POKE, (escaped(id),))
            except psycopg.Error as error:
                raise trouble(error, self.name) from error

    def waker(self) -> PostgresWaker:
        """The waker of clients and functions on this store."""
        return PostgresWaker(self)

    def local_waker(self) -> ListeningWaker:
        """The waker of a process that works on its own."""
        return ListeningWaker(self)

    async def close(self) -> None:
        await end_all(self)
        await self.pool.close()

    async def _read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """A read on a connection that had been lost unnoticed is repeated once on a new one."""
        try:
            return await self._on_connection(work, writing=False)
        except StoreUnavailable:
            return await self._on_connection(work, writing=False)

    async def _write(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        return await self._on_connection(work, writing=True)

    async def _on_connection(self, work: Callable[[Connection], Awaitable[T]], *, writing: bool) -> T:
        try:
            async with self.pool.connection() as connection:
                if not self._checked:
                    await apply_if_absent(connection)
                    self._checked = True
                return await _patiently(connection, work)
        except (psycopg.Error, UnicodeError, OverflowError) as error:
            raise trouble(error, self.name, writing=writing) from error


async def _patiently(connection: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
    """A statement that the server chose to end a deadlock with has changed nothing: once more."""
    for _ in range(_ATTEMPTS):
        try:
            return await work(connection)
        except (pg.DeadlockDetected, pg.SerializationFailure):
            pass
    return await work(connection)


async def _rows(connection: Connection, sql: str, parameters: Sequence[Any]) -> list[Row]:
    cursor = await connection.execute(sql.encode(), parameters)
    return [row_from(found) for found in await cursor.fetchall()]


async def _one(connection: Connection, sql: str, parameters: Sequence[Any]) -> Any:
    found = await (await connection.execute(sql.encode(), parameters)).fetchone()
    return found[0] if found is not None else None


async def commit_on(connection: Connection, commit: Commit) -> Refused | None:
    """Carry a commit out, or say why not."""
    if len(commit.puts) == 1 and not commit.deletes and not commit.guards:
        found = _single(commit.puts[0], commit.fence)
        if found is not None:
            sql, parameters = found
            if (await connection.execute(sql, parameters)).rowcount == 1:
                return None
    return refusal(await _one(connection, _COMMIT, (text_of(commit_request(commit)),)))


def _single(put: Put, fence: Fence | None) -> tuple[bytes, Sequence[Any]] | None:
    """The one statement that writes one row, with its parameters. None: it would lock rows out of order."""
    row = cells(put.row)
    if fence is None:
        return (_SQL_INSERT, row) if put.expect == 0 else (_SQL_UPDATE, (*row, put.expect))
    held = escaped(fence.id)
    if put.expect == 0:
        if row[5] is None and row[6] is None and row[11] is None and row[14:] == (None, None, None):
            step = (*row[:5], *row[7:11], row[12], row[13], held, fence.version)
            return _SQL_INSERT_STEP, step
        return _SQL_INSERT_FENCED, (*row, held, fence.version)
    if held == row[0]:
        return _SQL_UPDATE_HELD, (*row, put.expect, fence.version)
    if held < row[0]:
        return _SQL_UPDATE_FENCED, (*row, put.expect, held, fence.version)
    return None


_SQL_INSERT, _SQL_INSERT_STEP, _SQL_INSERT_FENCED = _INSERT.encode(), _INSERT_STEP.encode(), _INSERT_FENCED.encode()
_SQL_UPDATE, _SQL_UPDATE_HELD, _SQL_UPDATE_FENCED = _UPDATE.encode(), _UPDATE_HELD.encode(), _UPDATE_FENCED.encode()

_open: weakref.WeakSet[PostgresStore] = weakref.WeakSet()


def open_store(url: str) -> PostgresStore:
    """The store of a `postgresql://` URL. Raises InvalidArgument."""
    return PostgresStore(url)
