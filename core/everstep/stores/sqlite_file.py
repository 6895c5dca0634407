"""Opening an SQLite file, and what its errors mean. Nothing is changed in a file before it is known to be ours.

A file is ours by its application id, and its schema's version is its user version. Every error names the file, and says
who must act: wait, make room, give permission, restore a backup, upgrade.
"""

from __future__ import annotations

import os
import sqlite3
import time

from everstep.errors import (
    OutcomeUnknown,
    StoreCorrupted,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreTooNew,
    StoreUnavailable,
)

SCHEMA_VERSION = 1
APPLICATION_ID = 0x45565354

_SCHEMA = (
    """CREATE TABLE everstep_rows (
        id TEXT PRIMARY KEY NOT NULL, branch TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
        rev INTEGER NOT NULL, due INTEGER, lease INTEGER, epoch INTEGER, n INTEGER, param TEXT, value TEXT,
        timeout_at INTEGER, created_at INTEGER NOT NULL, settled_at INTEGER, tags TEXT, task TEXT, rest TEXT)""",
    "CREATE INDEX everstep_due ON everstep_rows (due, id) WHERE due IS NOT NULL",
    "CREATE INDEX everstep_roots ON everstep_rows (state, id, settled_at) WHERE instr(id, '.') = 0",
    "CREATE INDEX everstep_schedules ON everstep_rows (id) WHERE kind = 'schedule'",
)


class Place:
    """Where a database is and how it is opened; `timeout` in seconds."""

    def __init__(self, path: str, synchronous: str, timeout: float) -> None:
        self.path = path
        self.synchronous = synchronous
        self.timeout = timeout

    def connect(self) -> sqlite3.Connection:
        """A connection to our database, created where there is none. Raises StoreError."""
        self._check()
        try:
            connection = sqlite3.connect(
                self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False, cached_statements=64
            )
        except sqlite3.Error as error:
            raise self.trouble(error) from error
        try:
            self._prepare(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise self.trouble(error) from error
            raise
        return connection

    def trouble(self, error: sqlite3.Error, writing: bool = False) -> StoreError:
        """The store error that an SQLite error means."""
        code: int = getattr(error, "sqlite_errorcode", -1)
        match code & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return StoreUnavailable(f"{self.path}: another process has been writing for {self.timeout:g} seconds")
            case sqlite3.SQLITE_NOTADB:
                return StoreCorrupted(f"{self.path}: is not a database, or its first page is damaged")
            case sqlite3.SQLITE_CORRUPT:
                return StoreCorrupted(f"{self.path}: the database is damaged ({error})")
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return StoreReadOnly(f"{self.path}: the file is read-only")
            case sqlite3.SQLITE_FULL:
                return StoreFull(f"{self.path}: no room is left for it; nothing of this write was kept")
            case sqlite3.SQLITE_IOERR if writing:
                return OutcomeUnknown(f"{self.path}: {error}; whether this write happened is unknown")
            case _:
                return StoreError(f"{self.path}: {error}")

    def _check(self) -> None:
        folder = os.path.dirname(self.path)
        if not os.path.isdir(folder):
            raise StoreError(f"{self.path}: there is no folder {folder}; create it first")
        if os.path.isdir(self.path):
            raise StoreError(f"{self.path}: is a folder; name a file in it")
        if os.path.exists(self.path) and not os.access(self.path, os.W_OK):
            raise StoreReadOnly(f"{self.path}: the file is read-only for this user")
        if not os.access(folder, os.W_OK):
            raise StoreReadOnly(f"{self.path}: the folder {folder} is read-only for this user, and the log goes there")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        known = self._recognise(connection)
        self._use_wal(connection)
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        if not known:
            self._create(connection)

    def _recognise(self, connection: sqlite3.Connection) -> bool:
        """True for a database of ours, False for a new file; raises for what must not be touched."""
        application, version, objects = _marks(connection)
        if application == APPLICATION_ID:
            if version > SCHEMA_VERSION:
                raise StoreTooNew(
                    f"{self.path}: written by a newer version of Everstep (schema {version}, this one knows "
                    f"{SCHEMA_VERSION}); upgrade everstep"
                )
            return True
        if application or version or objects:
            raise StoreError(f"{self.path}: is the database of another program; give Everstep a file of its own")
        return False

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        """SQLite does not wait when two processes switch a new file to WAL at the same instant; so wait here."""
        give_up = time.monotonic() + self.timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.005)

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not self._recognise(connection):
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _marks(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Application id, user version and number of objects, of one instant: another process may be creating them."""
    outer = connection.in_transaction
    if not outer:
        connection.execute("BEGIN")
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        if not outer and connection.in_transaction:
            connection.execute("ROLLBACK")
    return application, version, objects
