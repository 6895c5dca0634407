"""Everstep on AWS Lambda: DynamoDB as the store, SQS with EventBridge Scheduler as the waker.

Names are imported when they are asked for: a cold start pays for what its invocation uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .blobs import S3Blobs
    from .store import DynamoStore, open_store
    from .tables import create_table
    from .waker import SqsWaker

__all__ = ["DynamoStore", "S3Blobs", "SqsWaker", "create_table", "open_store"]

_WHERE = {
    "DynamoStore": "store",
    "S3Blobs": "blobs",
    "SqsWaker": "waker",
    "create_table": "tables",
    "open_store": "store",
}


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{where}", __name__), name)
