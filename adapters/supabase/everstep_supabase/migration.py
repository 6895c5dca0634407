"""The migration: one SQL file that creates or renews everything, and one that removes it.

Both run in one transaction under a lock, so that several processes may try at once. A database without the schema gets
it on first use, as an SQLite file would; one that has it is renewed only when somebody says so.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import psycopg

from .connections import Connection

VERSION = 2
_LOCK = 0x65766572


def sql(name: str = "everstep") -> str:
    """The text of a migration: `everstep` or `everstep_down`."""
    return files("everstep_supabase").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


async def apply(connection: psycopg.AsyncConnection[Any], name: str = "everstep") -> None:
    """Run a migration in one transaction. Raises psycopg.Error."""
    async with connection.transaction():
        await connection.execute(f"select pg_advisory_xact_lock({_LOCK})".encode())
        await psycopg.AsyncClientCursor(connection).execute(sql(name).encode())


async def apply_if_absent(connection: Connection) -> None:
    """Run the migration where the schema does not exist."""
    found = await connection.execute(b"select to_regclass('everstep.rows') is null")
    row = await found.fetchone()
    if row is not None and row[0]:
        await apply(connection)
