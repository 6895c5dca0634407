"""Running one step: at least once, its recorded result exactly one.

A step sees `current_step()`: its id (an idempotency key for the outside world), the attempt, and what the App provides.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .errors import ControlFlow, NotSerializable, PayloadTooLarge
from .promise import RESOLVED, UNREAD, Payload, State

if TYPE_CHECKING:
    from .codec import Codec
    from .registry import App, FunctionInfo
    from .retry import Retry

D = TypeVar("D")


class StepInfo(NamedTuple):
    """The step that runs now. `id` is the same at every attempt; `attempt` counts from 1."""

    id: str
    attempt: int
    app: App

    def dependency(self, type_: type[D]) -> D:
        return self.app.dependency(type_)


_current: ContextVar[tuple[str, int, App] | None] = ContextVar("everstep_step", default=None)


def current_step() -> StepInfo:
    """The step that runs now. Raises LookupError outside of one."""
    step = _current.get()
    if step is None:
        raise LookupError("no step runs here: current_step() is for functions that ctx.run calls")
    return StepInfo._make(step)


class FailedForNow(NamedTuple):
    """The step is to run again, `delay` milliseconds from now; `error` in a few words."""

    delay: int
    error: str
    place: str = ""


_ATOMS = frozenset({str, int, float, bool, type(None)})

Ended = tuple[State, Payload, Any]
"""How a step ended for good: its state, its payload, and what that holds where nobody can change it, UNREAD elsewhere.
A plain tuple, because every step makes one."""

Outcome = Ended | FailedForNow
Threads = Callable[[Callable[[], Any]], Awaitable[Any]]


async def in_thread(call: Callable[[], Any]) -> Any:
    """Run a blocking call beside the loop."""
    return await asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, call)


async def run_step(
    app: App,
    codec: Codec,
    info: FunctionInfo,
    id: str,
    attempt: int,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    retry: Retry,
    timeout: int | None = None,
    threads: Threads | None = None,
) -> Outcome:
    """Run a step once and say what came of it; nothing it does raises here but control flow.

    Args:
        codec: how its result is stored.
        timeout: milliseconds; then the step is rejected for good, timed out. A blocking step is abandoned, not stopped.
        threads: how to run a blocking step beside the loop; None runs it on the loop.
    """
    step = (id, attempt, app)
    token = _current.set(step)
    limit = None if timeout is None else asyncio.timeout(timeout / 1000)
    try:
        try:
            if limit is None:
                value = await (info.fn(*args, **kwargs) if info.is_async else _call(info, args, kwargs, threads))
            else:
                async with limit:
                    value = await _call(info, args, kwargs, threads or in_thread)
        except (ControlFlow, KeyboardInterrupt):
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return _failed(codec, RuntimeError(f"{info.name}() was cancelled, and not by its run"), attempt, retry)
        except BaseException as error:
            if isinstance(error, GeneratorExit) and _current.get() is not step:
                raise  # abandoned, and closed where something else runs: no failure of the step
            if limit is not None and limit.expired():
                return State.TIMEDOUT, Payload(), UNREAD
            return _failed(codec, error, attempt, retry)
        try:
            if type(value) is info.exact or info.returns_as_is(value):
                return RESOLVED, codec.encode_plain(value, info.result), value
            return RESOLVED, codec.encode_plain(info.signature.plain_result(value), info.result), UNREAD
        except (NotSerializable, PayloadTooLarge, TypeError) as error:
            return State.REJECTED, codec.encode_error(error), UNREAD
    finally:
        try:
            _current.reset(token)
        except ValueError:
            pass  # abandoned, and closed by the collector where something else runs: this context has nothing of ours


async def _call(info: FunctionInfo, args: Sequence[Any], kwargs: Mapping[str, Any], threads: Threads | None) -> Any:
    if info.is_async:
        return await info.fn(*args, **kwargs)
    if threads is not None:
        return await threads(lambda: info.fn(*args, **kwargs))
    value = info.fn(*args, **kwargs)
    return await value if type(value) not in _ATOMS and asyncio.iscoroutine(value) else value


def _failed(codec: Codec, error: BaseException, attempt: int, retry: Retry) -> Outcome:
    delay = retry.delay_after(attempt, error)
    if delay is None:
        return State.REJECTED, codec.encode_error(error), UNREAD
    from .failures import describe, place

    return FailedForNow(delay, f"{type(error).__name__}: {describe(error)['message']}"[:200], place(error))
