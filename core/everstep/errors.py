"""Every error says who must act.

*You* (`EverstepError` and below `UsageError`): the call, the workflow or the data is wrong; repeating it
changes nothing.
*The platform* (`PlatformError`): the store or the waker is in trouble; the invocation ends and its wake-up stays.
*Nobody* (`ControlFlow`, a `BaseException`): the engine unwinds a workflow body; `except Exception` must not see it.
"""

from __future__ import annotations

from typing import Any


class EverstepError(Exception):
    """Base of every error that Everstep raises on purpose."""


class UsageError(EverstepError):
    """The caller must change something."""


class InvalidId(UsageError, ValueError):
    """An id is empty, too long, or has a dot where a root id may not (rule I2)."""


class InvalidArgument(UsageError, ValueError):
    """An option or an argument has a value outside its range; the message names it."""


class NotSerializable(UsageError, TypeError):
    """A value cannot be stored; the message names the parameter and the path inside it."""


class PayloadTooLarge(UsageError, ValueError):
    """A payload exceeds the limit of the store; the message names it, its size and the limit."""


class DecodeError(EverstepError, ValueError):
    """Stored data cannot be read back: wrong key, damaged text, or a value that does not fit its annotation."""


class DuplicateRegistration(UsageError, ValueError):
    """Two functions were registered under one name and version."""


class UnknownFunction(UsageError, LookupError):
    """No workflow or step of that name is registered."""


class NotFound(UsageError, LookupError):
    """No promise, task or schedule has that id."""


class Conflict(UsageError):
    """The id is taken by different work (rule I6).

    Args:
        attachable: whether whoever starts may choose to take what is there: `on_conflict="attach"`, or how that is
            called where it was asked for.
    """

    def __init__(self, message: str, *, attachable: bool = False) -> None:
        super().__init__(message)
        self.attachable = attachable

    def __str__(self) -> str:
        return f'{self.args[0]}, or pass on_conflict="attach"' if self.attachable else str(self.args[0])


class AlreadySettled(Conflict):
    """The promise was settled before, with another outcome."""


class RealIOError(BaseException):
    """A workflow body attempted real I/O; it belongs in a step: wrap it in `ctx.run`.

    A BaseException, and kept by the loop besides, so that `except Exception` cannot hide it (rule P4).
    """


class UnorderedError(RealIOError):
    """A workflow body asked asyncio for something whose order differs from replay to replay (rule P4)."""


class NondeterminismError(EverstepError):
    """The body no longer does what the record says it did.

    Attributes:
        id: the position at which they part.
        recorded: what the record holds there.
        current: what the code does there now.
    """

    def __init__(self, id: str, recorded: str, current: str) -> None:
        super().__init__(
            f"{id}: the record says {recorded}, the code now does {current}. "
            "The run is kept as it is; deploy the old code again, or give the new code another `version=`."
        )
        self.id = id
        self.recorded = recorded
        self.current = current


class Failed(EverstepError):
    """Base of an exception rebuilt from the record when its own class is not at hand; the subclass bears its name."""


class PromiseCanceled(EverstepError):
    """The awaited promise was cancelled from outside."""


class PromiseTimedOut(EverstepError, TimeoutError):
    """The awaited promise reached its deadline."""


class StillPending(EverstepError):
    """A result was asked for and is not there yet."""


class Halted(EverstepError):
    """The run is halted; `everstep continue` sets it going again. The message says why it was halted."""


class PlatformError(EverstepError):
    """The platform must recover; nothing is lost, the wake-up stays."""


class StoreError(PlatformError):
    """A store refused or failed."""


class StoreUnavailable(StoreError):
    """The store cannot be reached now or is busy; try again later."""


class StoreCorrupted(StoreError):
    """The store's data is damaged."""


class StoreReadOnly(StoreError):
    """The store cannot be written to."""


class StoreFull(StoreError):
    """The store has no room left."""


class StoreTooNew(StoreError):
    """The store was written by a newer version of Everstep."""


class OutcomeUnknown(StoreError):
    """A write may or may not have happened (rule F3)."""


class WakerError(PlatformError):
    """A wake-up could not be armed or sent."""


class ControlFlow(BaseException):
    """Unwinds an invocation; workflow code cannot catch it as an exception."""


class LeaseLost(ControlFlow):
    """Another holder took the task over."""


class Panic(ControlFlow):
    """An impossible state: abort without settling. The run is halted with this reason for a person to look at."""

    def __init__(self, reason: str, details: Any = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = details
