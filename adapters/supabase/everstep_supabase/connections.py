"""Connections to Postgres: a few for each event loop, opened when needed, and what their errors mean.

A connection belongs to the loop that opened it. What is idle when its loop is gone is closed by the next one that asks.
All parameters travel as text whose type the server infers, so that a statement is prepared once whatever is NULL in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors as pg
from psycopg.adapt import Dumper
from psycopg.rows import tuple_row

from everstep.errors import (
    InvalidArgument,
    OutcomeUnknown,
    StoreCorrupted,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
_USES = 2
"""How often a connection sends a statement before it prepares it: a round trip of its own, which a function that lives
for one invocation never gets back."""
CONNECT_TIMEOUT = 10
"""Seconds until a server that does not answer counts as away."""
_ALIVE = {"keepalives_idle": "20", "keepalives_interval": "5", "keepalives_count": "4", "tcp_user_timeout": "20000"}
"""What libpq asks of TCP, so that a connection whose other end is gone (a host that died, a forgetful gateway) is known
to be lost within a minute: by itself the system waits for a quarter of an hour, or for ever."""


class _IntAsText(Dumper):
    oid = 0

    def dump(self, obj: Any) -> bytes:
        return b"%d" % obj


class Options:
    """What a store URL says: where the server is, and how to use it.

    `?pool=8` connections for each loop; `?prepare=no` where a pooler in transaction mode stands between (Supabase's
    answers on port 6543, where it is assumed). Any other option is libpq's.

    Raises:
        InvalidArgument: naming the option.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        kept = []
        self.pool = 8
        hosts = parts.netloc.rpartition("@")[2] or "localhost"  # one, or several with commas between
        self.prepare = not any(host.endswith(":6543") for host in hosts.split(","))
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name == "pool":
                if not value.isdecimal() or int(value) < 1:
                    raise InvalidArgument(f"pool={value}: write a number of connections, 1 or more")
                self.pool = int(value)
            elif name == "prepare":
                if value not in ("yes", "no"):
                    raise InvalidArgument(f"prepare={value}: write yes or no")
                self.prepare = value == "yes"
            else:
                kept.append((name, value))
        kept += [(name, value) for name, value in _ALIVE.items() if name not in dict(kept)]
        self.dsn = urlunsplit(parts._replace(query=urlencode(kept, quote_via=quote)))
        self.name = f"{hosts if ':' in hosts else f'{hosts}:5432'}{parts.path}"  # for messages: never the password


class Pool:
    """Connections by loop.

    Args:
        url: of the server, with the options above.
    """

    def __init__(self, url: str) -> None:
        self.options = Options(url)
        self.closed = False
        self._idle: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Connection]] = WeakKeyDictionary()
        self._free: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One connection, in autocommit. Raises StoreUnavailable where none can be had, StoreError when closed."""
        loop = asyncio.get_running_loop()
        free = self._free.get(loop)
        if free is None:
            self._forget_dead_loops()
            free = self._free[loop] = asyncio.Semaphore(self.options.pool)
        async with free:
            idle = self._idle.setdefault(loop, [])
            connection = idle.pop() if idle else await self.connect()
            try:
                yield connection
            except BaseException:
                # Cancelled or broken in the middle of something: nobody knows what it still has to say.
                await _discard(connection)
                if connection.broken:
                    await self.drop()
                raise
            if self.closed or connection.closed:
                await _discard(connection)
            else:
                idle.append(connection)

    async def connect(self, *, plain: bool = False) -> Connection:
        """A connection of one's own; `plain`: as psycopg makes it, for statements that are not ours.

        Raises StoreUnavailable, StoreError.
        """
        if self.closed:
            raise StoreError(f"{self.options.name}: this store was closed")
        try:
            connection = await psycopg.AsyncConnection.connect(
                self.options.dsn,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT,
                prepare_threshold=_USES if self.options.prepare else None,
            )
        except psycopg.Error as error:
            raise trouble(error, self.options.name, connecting=True) from error
        return connection if plain else as_ours(connection)

    async def drop(self) -> None:
        """Close what is idle on this loop: after one connection broke, the others have, too."""
        idle = self._idle.get(asyncio.get_running_loop(), [])
        while idle:
            await _discard(idle.pop())

    async def close(self) -> None:
        """Close what is idle, and whatever is given back later."""
        self.closed = True
        await self.drop()
        self._forget_dead_loops()

    def _forget_dead_loops(self) -> None:
        for loop, idle in list(self._idle.items()):
            if loop.is_closed():
                while idle:
                    idle.pop().pgconn.finish()
                self._free.pop(loop, None)


def as_ours(connection: Connection) -> Connection:
    """Set up for this package's statements."""
    connection.cursor_factory = psycopg.AsyncRawCursor
    connection.row_factory = tuple_row
    connection.adapters.register_dumper(int, _IntAsText)
    return connection


async def _discard(connection: Connection) -> None:
    try:
        await connection.close()
    except psycopg.Error:
        pass


_MISSING = (pg.UndefinedTable, pg.UndefinedFunction, pg.InvalidSchemaName, pg.UndefinedColumn)


def trouble(error: Exception, name: str, *, writing: bool = False, connecting: bool = False) -> StoreError:
    """What a driver's error means. `writing`: a lost connection leaves open whether it happened (rule F3)."""
    said = f"{name}: {str(error).strip() or type(error).__name__}"
    match error:
        case UnicodeError() | OverflowError() | psycopg.DataError():
            return StoreError(f"{name}: cannot be stored: {error}")
        case psycopg.Error() if isinstance(error, _MISSING):
            return StoreError(f"{said}\nThe migration is missing: python -m everstep_supabase migrate URL")
        case pg.DiskFull():
            return StoreFull(said)
        case pg.ReadOnlySqlTransaction():
            return StoreReadOnly(said)
        case pg.DataCorrupted() | pg.IndexCorrupted():
            return StoreCorrupted(said)
        case pg.InvalidPassword() | pg.InvalidAuthorizationSpecification() | pg.InvalidCatalogName():
            return StoreError(said)
        case (
            pg.DeadlockDetected()
            | pg.SerializationFailure()
            | pg.LockNotAvailable()
            | pg.TooManyConnections()
            | pg.CannotConnectNow()
            | pg.OutOfMemory()
        ):
            return StoreUnavailable(said)
        case pg.QueryCanceled():
            return StoreUnavailable(said)
        case psycopg.OperationalError() | psycopg.InterfaceError():
            if connecting:
                return StoreError(said) if "authentication failed" in said else StoreUnavailable(said)
            return OutcomeUnknown(said) if writing else StoreUnavailable(said)
        case _:
            return StoreError(said)
