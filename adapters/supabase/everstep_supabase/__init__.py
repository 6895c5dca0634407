"""Everstep on Postgres and Supabase: one SQL migration is the store, pg_cron with pg_net (or LISTEN) the waker.

Names are imported when they are used: a function that only starts runs needs no driver's start-up time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auth import verify_token
    from .blobs import SupabaseBlobs
    from .handler import handler
    from .rpc import RpcStore
    from .store import PostgresStore, open_store
    from .transaction import transaction
    from .waker import PostgresWaker
    from .worker import Worker

__all__ = [
    "PostgresStore",
    "PostgresWaker",
    "RpcStore",
    "SupabaseBlobs",
    "Worker",
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
    "Worker": "worker",
    "handler": "handler",
    "open_store": "store",
    "transaction": "transaction",
    "verify_token": "auth",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
