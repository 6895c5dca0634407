"""A step's own rows and its checkpoint in one transaction: the effect is exactly once.

    @app.step
    async def debit(account: str, cents: int) -> None:
        async with everstep_supabase.transaction() as connection:
            await connection.execute("insert into ledger ...")

Theory. The block's transaction is not committed at its end. It is kept aside under the step's id, and the store writes
the step's checkpoint in it when the driver asks, fence included, and commits both. Whoever dies before leaves neither;
whoever lost the lease is refused, and its rows are rolled back; a step that fails afterwards takes its rows with it. A
transaction that nobody comes for is ended by the server (`idle_in_transaction_session_timeout`).

A commit that is refused because the record stands already ends the invocation instead of being tried again: another
holder's checkpoint, and so its rows, may be there, and the next load finds out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from everstep.errors import StoreError, StoreUnavailable, UsageError
from everstep.ports import Commit, Refused
from everstep.promise import State
from everstep.steps import current_step

from .connections import Connection, as_ours, trouble

if TYPE_CHECKING:
    from .store import PostgresStore

IDLE = 60
"""Seconds after which the server ends a transaction whose step never came to its checkpoint."""


@asynccontextmanager
async def transaction(store: PostgresStore | None = None) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection inside a transaction that commits together with the checkpoint of the step that runs now.

    The connection must not be committed, rolled back or kept by the block. One block in a step.

    Args:
        store: of the runs; not needed where a process has opened one.

    Raises:
        LookupError: no step runs here.
        UsageError: the process has opened several stores of Postgres, or none; or the step has a block already.
        StoreError: the database cannot be reached. (Errors of the block's own statements are psycopg's.)
    """
    step = current_step()
    from .store import _open

    if store is None:
        stores = [one for one in _open if not one.pool.closed]
        if len(stores) != 1:
            raise UsageError(f"transaction(): {len(stores)} stores of Postgres are open here; pass the one meant")
        (store,) = stores
    key = (step.id, asyncio.get_running_loop())
    if key in store.staged:
        await _end(store.staged.pop(key))
    connection = await store.pool.connect(plain=True)
    try:
        await connection.set_autocommit(False)
        await connection.execute(f"set local idle_in_transaction_session_timeout = '{IDLE}s'".encode())
        yield connection
        if connection.info.transaction_status is not psycopg.pq.TransactionStatus.INTRANS:
            raise UsageError("transaction(): the block ended its transaction; the checkpoint does that")
    except BaseException:
        await _end(connection)
        raise
    store.staged[key] = as_ours(connection)


def taken(store: PostgresStore, commit: Commit) -> tuple[Connection, bool] | None:
    """The transaction that waits for this commit, and whether it is to be committed with it: a step that failed, for
    now or for good, takes its rows with it."""
    if not store.staged or len(commit.puts) != 1:
        return None
    row = commit.puts[0].row
    connection = store.staged.pop((row.id, asyncio.get_running_loop()), None)
    return (connection, row.state == State.RESOLVED.value) if connection is not None else None


async def commit_with(connection: Connection, commit: Commit, name: str) -> Refused | None:
    """The checkpoint and the step's rows, in the transaction that holds them.

    Raises:
        OutcomeUnknown: the connection was lost at the end.
        StoreError: neither was written.
    """
    from .store import commit_on

    try:
        refused = await commit_on(connection, commit)
    except (psycopg.Error, UnicodeError, OverflowError) as error:
        await _end(connection)
        raise trouble(error, name) from error  # before the COMMIT: nothing can have happened
    except BaseException:
        await _end(connection)
        raise
    if refused is not None:
        await _end(connection)
        if refused.fenced:
            return refused
        id = commit.puts[0].row.id
        raise StoreUnavailable(f"{name}: a record of {id!r} stands already; the run is loaded again")
    try:
        await connection.commit()
    except psycopg.Error as error:
        # Deferred constraints are checked now: the server has said no, and nothing happened.
        said = trouble(error, name, writing=True)
        raise said if not isinstance(error, psycopg.IntegrityError) else StoreError(str(error)) from error
    finally:
        await _end(connection)
    return None


async def end_all(store: PostgresStore) -> None:
    while store.staged:
        await _end(store.staged.popitem()[1])


async def _end(connection: Connection) -> None:
    """Close, and with it roll back."""
    try:
        await connection.close()
    except psycopg.Error:
        pass
