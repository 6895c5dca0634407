"""The HTTP edge: an ASGI app over a client, mountable under any prefix.

Only this package and the command line may use other libraries, and they are imported when the app is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everstep.client import Client
    from everstep.clock import Clock
    from everstep.registry import App
    from everstep.tokens import Secret

    from .access import Principal
    from .application import Application
    from .auth import Auth
    from .bearer import Bearer
    from .hub import Hub
    from .limits import Rate
    from .messages import Messenger

__all__ = ["Bearer", "Hub", "Messenger", "Principal", "Rate", "asgi"]

_HOME = {"Bearer": "bearer", "Hub": "hub", "Messenger": "messages", "Principal": "access", "Rate": "limits"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def asgi(
    client: Client | str,
    app: App | None = None,
    *,
    auth: Auth | str | None = None,
    secret: Secret | Sequence[Secret] | None = None,
    page: bool = True,
    max_body: int = 1_000_000,
    max_wait: float = 55.0,
    hosts: Sequence[str] | None = None,
    clock: Clock | None = None,
    messages: Messenger | None = None,
    origins: Sequence[str] = (),
    rate: Rate | None = None,
    debug: bool = False,
) -> Application:
    """The ASGI app of contract section 5.

    Args:
        client: or the URL of a store, which is then opened on first use and closed with the app.
        app: whose workflows can be started; needed to open a URL.
        auth: a bearer token; a `Bearer`, which verifies JSON Web Tokens; or a callable (perhaps async) that gets the
            request and returns who it is (a `Principal`) or whether it may pass: a false value answers 401, a
            PermissionError 403. None lets everybody pass, except that a browser's request from another site may then
            change nothing.
        secret: for the links under `/approve/`; several while an old one is being replaced. None offers no links.
        page: whether `/` shows the live page.
        max_body: bytes of a request body; more is answered 413.
        max_wait: seconds that `?wait=` may hold a request.
        hosts: the names under which this is reachable; a request for any other is refused. None takes all.
        clock: the machine's by default.
        messages: how workers and listeners elsewhere get theirs, where the client's service has no way of its own; by
            default they are pulled from this process, and pushed.
        origins: of pages elsewhere that may call this from a browser (CORS); "*" for any.
        rate: of requests, for each address and each token's owner; more is answered 429.
        debug: whether an administrator's token may send the protocol's debug requests.

    Raises:
        InvalidArgument: an option is outside its range.
        ImportError: starlette is missing; `pip install 'everstep[dev]'` brings it.
    """
    try:
        from .application import Application
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "starlette":
            raise
        raise ImportError("everstep.http needs starlette: pip install 'everstep[dev]'", name="starlette") from error
    return Application(
        client,
        app,
        auth=auth,
        secret=secret,
        page=page,
        max_body=max_body,
        max_wait=max_wait,
        hosts=hosts,
        clock=clock,
        messages=messages,
        origins=origins,
        rate=rate,
        debug=debug,
    )
