"""How a workflow function is called: coroutine, generator or plain function, with the retries of its policy.

What an exception means is decided here: an outcome of the body, or nothing of the body's at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from .context import Context, ContinueAsNew, Scope, current_scope
from .errors import ControlFlow, InvalidArgument, NondeterminismError, PromiseCanceled, RealIOError
from .operation import Completion, DurableFuture
from .promise import State

if TYPE_CHECKING:
    from .registry import FunctionInfo

PASS = (ControlFlow, RealIOError, KeyboardInterrupt)
"""What is no outcome of a body, and must reach whoever runs it."""


async def call_workflow(scope: Scope, info: FunctionInfo, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A workflow from its beginning to its end, again and again as its policy says."""
    current_scope.set(scope)
    ctx = Context(scope)
    while True:
        try:
            result = info.fn(ctx, *args, **kwargs)
            if isinstance(result, GeneratorType):  # before coroutines: asyncio of 3.11 takes a generator for one
                return await _drive(result)
            return await result if asyncio.iscoroutine(result) else result
        except Exception as error:
            delay = info.retry.delay_after(scope.attempt, error)
            if delay is None or isinstance(error, NondeterminismError):
                raise
        scope.attempt += 1
        await scope.body.timer(scope, scope.body.now_ms + delay)


async def call_inline(
    op: DurableFuture[Any], scope: Scope, info: FunctionInfo, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """A workflow that runs inline as a child; its body is told how it ended."""
    try:
        value = await call_workflow(scope, info, args, kwargs)
    except (GeneratorExit, *PASS):
        raise
    except asyncio.CancelledError:
        if op.done():
            raise
        completion = Completion(State.REJECTED, PromiseCanceled(f"{op.key} cancelled itself"))
    except BaseException as error:
        completion = Completion(State.REJECTED, error)
    else:
        if isinstance(value, ContinueAsNew):
            refusal = InvalidArgument(
                f"{info.name}() runs inline as a child; continue_as_new is for runs of their own (rpc)"
            )
            completion = Completion(State.REJECTED, refusal)
        else:
            completion = Completion(State.RESOLVED, value)
    scope.body.ended_children.append((op, completion))


async def _drive(generator: Generator[Any, Any, Any]) -> Any:
    """Run a generator workflow: `yield` waits for a future, or for all of a list of them."""
    value: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                wanted = generator.throw(error) if error is not None else generator.send(value)
            except StopIteration as stop:
                return stop.value
            value = error = None
            try:
                if isinstance(wanted, (list, tuple)):
                    value = await asyncio.gather(*wanted)
                elif isinstance(wanted, asyncio.Future) or hasattr(wanted, "__await__"):
                    value = await wanted
                else:
                    error = TypeError(
                        f"a workflow yields operations (ctx.run(...), ctx.sleep(...)) or lists of them, not {wanted!r}"
                    )
            except (Exception, asyncio.CancelledError) as raised:
                error = raised
    finally:
        generator.close()
