"""Everstep on Postgres and Supabase: one SQL migration is the store, pg_cron with pg_net (or LISTEN) the waker.

Names are imported when they are used: a function that only starts runs needs no driver's start-up time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .auth import verify_token
from .handler import handler

if TYPE_CHECKING:
    from .blobs import SupabaseBlobs
    from .rpc import RpcStore
    from .store import PostgresStore, open_store
    from .transactions import transaction
    from .waker import PostgresWaker

__all__ = [
    "PostgresStore",
    "PostgresWaker",
    "RpcStore",
    "SupabaseBlobs",
    "handler",
    "open_store",
    "transaction",
    "verify_token",
]

_HOME = {
    "PostgresStore": "store",
    "PostgresWaker": "waker",
    "RpcStore": "rpc",
    "SupabaseBlobs": "blobs",
    "open_store": "store",
    "transaction": "transactions",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
