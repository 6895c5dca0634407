"""The target of functions-framework for an App: what it takes from its environment, opened by the first request."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from everstep.client import Client
from everstep.clock import Clock
from everstep.errors import InvalidArgument

from .auth import Verifier
from .function import Function
from .logs import install
from .settings import Settings
from .store import open_store
from .waker import CloudTasksWaker

if TYPE_CHECKING:
    from flask import Request, Response

    from everstep.http.auth import Auth
    from everstep.registry import App, Workflow

Target = Callable[["Request"], "Response"]
"""What functions-framework serves; its attribute `function` is the Function behind it."""


def handler(
    app: App,
    *,
    settings: Settings | None = None,
    client: Client | Callable[[], Client] | None = None,
    verifier: Verifier | None = None,
    auth: Auth | str | None = None,
    clock: Clock | None = None,
    **http: Any,
) -> Target:
    """The target of functions-framework for an App: `main = everstep_gcp.handler(app)`.

    Args:
        settings: by default what the environment says, read now.
        client: of the store and the waker; by default as the settings describe it, opened by the first request.
        verifier: of the tokens of wake-ups and events.
        auth: of the HTTP API: a bearer token, or a callable as `everstep.http.asgi` takes it. By default whoever has
            EVERSTEP_TOKEN, or the identity token of an account that may call.
        clock: the machine's by default.
        http: further options of `everstep.http.asgi`.

    Raises:
        InvalidArgument: a variable of the environment has a value outside its range.
    """
    return function(app, None, settings, client, verifier, auth, clock, http)


def function(
    app: App,
    workflow: Workflow[..., Any] | None,
    settings: Settings | None,
    client: Client | Callable[[], Client] | None,
    verifier: Verifier | None,
    auth: Auth | str | None,
    clock: Clock | None,
    http: Mapping[str, Any],
) -> Target:
    """`handler`, for an App that may be one workflow. The framework takes nothing but a real function."""
    chosen = settings if settings is not None else Settings.read()
    if os.environ.get("K_SERVICE"):
        install(os.environ.get("GOOGLE_CLOUD_PROJECT", "") or os.environ.get("GCP_PROJECT", ""))
        from . import connection as _  # noqa: F401 - an instance that starts has more of a processor than later

    def opened() -> Client:
        if not chosen.store:
            raise InvalidArgument("no store: set EVERSTEP_STORE to firestore://project/database")
        store = open_store(chosen.store)
        store.bucket = store.bucket or chosen.bucket
        return Client(store, CloudTasksWaker.of(chosen, clock), app=app, clock=clock)

    make: Callable[[], Client]
    if client is None:
        make = opened
    elif isinstance(client, Client):
        make = lambda: client  # noqa: E731
    else:
        make = client
    made = Function(
        app,
        chosen,
        client=make,
        verifier=verifier or Verifier(chosen.audiences, chosen.callers, certificates=chosen.certificates),
        auth=auth,
        workflow=workflow,
        http=http,
    )

    def target(request: Request) -> Response:
        return made(request)

    target.function = made  # type: ignore[attr-defined]
    return target
