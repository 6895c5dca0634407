"""Who may pass. The live page and the API description hold no data and are open; a signed link is its own proof.

What lets a request pass may say who it is: a `Principal`, whose prefix and role then count. Anything else that is true
lets everything pass.
"""

from __future__ import annotations

import hmac
import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from starlette.requests import Request

from .access import EVERYBODY, Principal
from .problems import Problem

Auth = Callable[[Request], Any | Awaitable[Any]]
"""Gets the request, whose `scope["everstep.token"]` is the bearer token that came with it, if any."""

TOKEN = "everstep.token"
_ADMIN = Principal(role="admin", name="token")

_SAFE = ("GET", "HEAD")


def check_host(hosts: Collection[str] | None, request: Request) -> None:
    """Raise Problem 403 for a name that is not ours: a site whose name was pointed here would count as this site."""
    if hosts is None:
        return
    given = request.headers.get("host", "")
    name = given[1:].partition("]")[0] if given.startswith("[") else given.partition(":")[0]
    if name not in hosts:
        raise Problem(403, f"this is not {name!r}")


def from_elsewhere(request: Request, origins: Collection[str]) -> bool:
    """Whether a page of another site, and not one of `origins`, made a browser send this.

    Over plain HTTP to another machine browsers do not say so themselves, but name the page's origin.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    named = origin is not None and origin.partition("://")[2] != request.headers.get("host")
    elsewhere = named if site is None else site == "cross-site"
    return elsewhere and "*" not in origins and origin not in origins


async def check(
    auth: Auth | str | None, request: Request, origins: Collection[str] = (), token: str | None = None
) -> Principal:
    """Who sent a request. Raises Problem 401 or 403 unless it may pass.

    Args:
        origins: of pages elsewhere that may change something where no token is asked for.
        token: what came with the request otherwise than in its header.
    """
    if auth is None:
        # A page of another site can make a browser send this request, but not without this header.
        if request.method not in _SAFE and from_elsewhere(request, origins):
            raise Problem(403, "a page of another site may not change anything here")
        return EVERYBODY
    given = bearer(request) or token
    if isinstance(auth, str):
        if given is None or not hmac.compare_digest(given.encode(errors="replace"), auth.encode()):
            raise unknown()
        return _ADMIN
    request.scope[TOKEN] = given
    try:
        answer = auth(request)
        if inspect.isawaitable(answer):
            answer = await answer
    except PermissionError as error:
        raise Problem(403, str(error) or "not allowed") from error
    if isinstance(answer, Principal):
        return answer
    if not answer:
        raise unknown()
    return _ADMIN


def bearer(request: Request) -> str | None:
    """The bearer token in a request's header."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() or None if scheme.lower() == "bearer" else None


def unknown() -> Problem:
    return Problem(401, "a valid bearer token is needed", headers={"www-authenticate": "Bearer"})
