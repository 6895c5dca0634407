"""`durable`: a Lambda function that is one workflow."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, overload

from everstep.events import Event, run_id
from everstep.registry import App

from .function import Function, handler

if TYPE_CHECKING:
    from everstep.context import Context

Body = Callable[["Context", Any], Coroutine[Any, Any, Any]]


@overload
def durable(fn: Body, /) -> Function: ...
@overload
def durable(
    *, name: str | None = None, id: Callable[[Event], str] | None = None, app: App | None = None, **options: Any
) -> Callable[[Body], Function]: ...
def durable(
    fn: Body | None = None,
    /,
    *,
    name: str | None = None,
    id: Callable[[Event], str] | None = None,
    app: App | None = None,
    **options: Any,
) -> Function | Callable[[Body], Function]:
    """A function that is one workflow: `@everstep_aws.durable` over `async def handler(ctx, event)`.

    Every event starts a run whose argument is the event's data: a record of a queue, a stream, a bucket; or the payload
    of a direct invocation. The answer to a direct invocation is `{"ids": [id]}`, once the start is durable.

    Args:
        name: of the workflow, and of its App; by default the function's.
        id: the run's id; by default made of the event's own identity, so that an event delivered again starts nothing.
        app: to register it with, where it has steps of its own.
        options: of `handler`.
    """

    def decorate(body: Body) -> Function:
        known = str(name or getattr(body, "__name__", "handler"))
        home = app if app is not None else App(known)
        workflow = home.workflow(name=known)(body)

        async def start(event: Event) -> list[str]:
            chosen = id(event) if id is not None else run_id(known, event)
            starter = made.client.options(id=chosen, on_conflict="attach")
            return [(await starter.start(workflow, event.data)).id]

        made = handler(home, **options)
        made.start_with(start)
        return made

    return decorate if fn is None else decorate(fn)
