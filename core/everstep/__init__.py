"""Everstep: ordinary Python functions, durable on the platform a team already pays for.

The public names, nothing else. What a workflow file needs is imported at once; clients, runtimes and codecs on first
use, because a function that wakes up pays for every import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    AlreadySettled,
    Conflict,
    DecodeError,
    DuplicateRegistration,
    EverstepError,
    Failed,
    Halted,
    InvalidArgument,
    InvalidId,
    NondeterminismError,
    NotFound,
    NotSerializable,
    Panic,
    PayloadTooLarge,
    PlatformError,
    PromiseCanceled,
    PromiseTimedOut,
    RealIOError,
    StillPending,
    StoreCorrupted,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreTooNew,
    StoreUnavailable,
    UnknownFunction,
    UnorderedError,
    UsageError,
    WakerError,
)
from .registry import App, Workflow
from .retry import Retry

if TYPE_CHECKING:
    from .background import Background as Background
    from .blobs import Blobs as Blobs
    from .blobs import DirectoryBlobs as DirectoryBlobs
    from .client import Client as Client
    from .client import Handle as Handle
    from .codec import Codec as Codec
    from .context import Context as Context
    from .crypto import AesGcm as AesGcm
    from .crypto import Encryptor as Encryptor
    from .events import Event as Event
    from .local import Runtime as Runtime
    from .operation import DurableFuture as DurableFuture
    from .steps import StepInfo as StepInfo
    from .steps import current_step as current_step
    from .sync import SyncClient as SyncClient

_LAZY = {
    "AesGcm": "crypto",
    "Background": "background",
    "Blobs": "blobs",
    "Client": "client",
    "Codec": "codec",
    "Context": "context",
    "DirectoryBlobs": "blobs",
    "DurableFuture": "operation",
    "Encryptor": "crypto",
    "Event": "events",
    "Handle": "client",
    "Runtime": "local",
    "StepInfo": "steps",
    "SyncClient": "sync",
    "current_step": "steps",
}

__all__ = [
    "AesGcm",
    "AlreadySettled",
    "App",
    "Background",
    "Blobs",
    "Client",
    "Codec",
    "Conflict",
    "Context",
    "DecodeError",
    "DirectoryBlobs",
    "DuplicateRegistration",
    "DurableFuture",
    "Encryptor",
    "Event",
    "EverstepError",
    "Failed",
    "Halted",
    "Handle",
    "InvalidArgument",
    "InvalidId",
    "NondeterminismError",
    "NotFound",
    "NotSerializable",
    "Panic",
    "PayloadTooLarge",
    "PlatformError",
    "PromiseCanceled",
    "PromiseTimedOut",
    "RealIOError",
    "Retry",
    "Runtime",
    "StepInfo",
    "StillPending",
    "StoreCorrupted",
    "StoreError",
    "StoreFull",
    "StoreReadOnly",
    "StoreTooNew",
    "StoreUnavailable",
    "SyncClient",
    "UnknownFunction",
    "UnorderedError",
    "UsageError",
    "WakerError",
    "Workflow",
    "current_step",
]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'everstep' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"everstep.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
