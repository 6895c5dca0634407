"""Everstep on AWS Lambda: DynamoDB as the store, SQS with EventBridge Scheduler as the waker.

    handler = everstep_aws.handler(app)

Nothing of the vendor's library is imported before it is needed: a cold start pays for what its invocation uses.
"""

from __future__ import annotations

from .auth import Gate
from .blobs import S3Blobs
from .deadletters import dead_letters
from .durable import durable
from .events import MalformedEvent, UnknownEvent
from .handler import Function, handler
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
