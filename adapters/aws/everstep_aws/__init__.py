"""Everstep on AWS Lambda: DynamoDB as the store, SQS with EventBridge Scheduler as the waker.

    handler = everstep_aws.handler(app)

Names are imported when they are asked for, and the vendor's library when it is needed: a cold start pays for what its
invocation uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auth import Gate
    from .blobs import S3Blobs
    from .deadletters import dead_letters
    from .decorator import durable
    from .events import MalformedEvent, UnknownEvent
    from .function import Function, handler
    from .kms import KmsEncryptor, new_data_key
    from .store import DynamoStore, open_store
    from .tables import create_table
    from .waker import SqsWaker

__all__ = [
    "handler",
    "durable",
    "dead_letters",
    "Function",
    "DynamoStore",
    "open_store",
    "create_table",
    "SqsWaker",
    "S3Blobs",
    "KmsEncryptor",
    "new_data_key",
    "Gate",
    "UnknownEvent",
    "MalformedEvent",
]

_WHERE = {
    "handler": "function",
    "durable": "decorator",
    "dead_letters": "deadletters",
    "Function": "function",
    "DynamoStore": "store",
    "open_store": "store",
    "create_table": "tables",
    "SqsWaker": "waker",
    "S3Blobs": "blobs",
    "KmsEncryptor": "kms",
    "new_data_key": "kms",
    "Gate": "auth",
    "UnknownEvent": "events",
    "MalformedEvent": "events",
}


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{where}", __name__), name)
