"""The HTTP edge: an ASGI app over a client, mountable under any prefix.

Only this package and the command line may use other libraries, and they are imported when the app is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from everstep.client import Client
    from everstep.clock import Clock
    from everstep.registry import App
    from everstep.tokens import Secret

    from .application import Application
    from .auth import Auth

__all__ = ["asgi"]


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
) -> Application:
    """The ASGI app of contract section 5.

    Args:
        client: or the URL of a store, which is then opened on first use and closed with the app.
        app: whose workflows can be started; needed to open a URL.
        auth: a bearer token, or a callable (perhaps async) that gets the request and returns whether it may pass: a
            false value answers 401, a PermissionError 403. None lets everybody pass, except that a browser's request
            from another site may then change nothing.
        secret: for the links under `/approve/`; several while an old one is being replaced. None offers no links.
        page: whether `/` shows the live page.
        max_body: bytes of a request body; more is answered 413.
        max_wait: seconds that `?wait=` may hold a request.
        hosts: the names under which this is reachable; a request for any other is refused. None takes all.
        clock: the machine's by default.

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
    )
