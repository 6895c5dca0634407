"""Everstep on Google Cloud Functions and Cloud Run, with Firestore as the store and Cloud Tasks as the waker.

    main = everstep_gcp.handler(app)

Nothing of the vendor's libraries is imported before the first request needs it.
"""

from __future__ import annotations

from .auth import Verifier
from .blobs import CloudStorageBlobs
from .durable import durable
from .handler import Target, handler
from .settings import Settings
from .store import FirestoreStore, open_store
from .waker import CloudTasksWaker

__all__ = [
    "handler",
    "durable",
    "Target",
    "FirestoreStore",
    "open_store",
    "CloudTasksWaker",
    "CloudStorageBlobs",
    "Settings",
    "Verifier",
]
