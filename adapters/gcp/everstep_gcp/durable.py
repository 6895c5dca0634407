"""A function that is one workflow: what is posted to it starts a run, and so does every event it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from everstep.registry import App

from .handler import Target, function

KINDS = ("pubsub", "cloudevent", "cron")
"""Kinds of events that start the run of such a function."""


@overload
def durable(fn: Callable[..., Any], /) -> Target: ...
@overload
def durable(*, name: str | None = None, app: App | None = None, **options: Any) -> Callable[[Any], Target]: ...
def durable(
    fn: Callable[..., Any] | None = None, /, *, name: str | None = None, app: App | None = None, **options: Any
) -> Any:
    """Make `async def handler(ctx, event)` the target of functions-framework.

    `POST /` starts a run with the request's JSON as its event and answers 202 with the run's id; the header
    `Idempotency-Key` makes a repetition attach to the run that stands. A CloudEvent, a push of Pub/Sub and a tick of
    Cloud Scheduler start a run each, identified by the event. Every other route is that of the HTTP API.

    Args:
        name: of the workflow and its App; the function's by default.
        app: to register the workflow with; one of its own by default.
        options: as `handler` takes them.

    Raises:
        InvalidArgument: as `handler`.
    """

    def make(fn: Callable[..., Any]) -> Target:
        called = name or fn.__name__
        own = app if app is not None else App(called)
        workflow = own.workflow(name=called)(fn)
        for kind in KINDS:
            own.on(kind)(workflow)
        settings = {key: options.pop(key, None) for key in ("settings", "client", "verifier", "auth", "clock")}
        return function(own, workflow, **settings, http=options)

    return make if fn is None else make(fn)
