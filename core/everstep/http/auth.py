"""Who may pass. The live page and the API description hold no data and are open; a signed link is its own proof."""

from __future__ import annotations

import hmac
import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from starlette.requests import Request

from .problems import Problem

Auth = Callable[[Request], Any | Awaitable[Any]]

_SAFE = ("GET", "HEAD")


def check_host(hosts: Collection[str] | None, request: Request) -> None:
    """Raise Problem 403 for a name that is not ours: a site whose name was pointed here would count as this site."""
    if hosts is None:
        return
    given = request.headers.get("host", "")
    name = given[1:].partition("]")[0] if given.startswith("[") else given.partition(":")[0]
    if name not in hosts:
        raise Problem(403, f"this is not {name!r}")


async def check(auth: Auth | str | None, request: Request) -> None:
    """Raise Problem 401 or 403 unless the request may pass."""
    if auth is None:
        # A page of another site can make a browser send this request, but not without this header.
        if request.method not in _SAFE and request.headers.get("sec-fetch-site") == "cross-site":
            raise Problem(403, "a page of another site may not change anything here")
        return
    if isinstance(auth, str):
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        allowed = hmac.compare_digest(given.strip().encode(errors="replace"), auth.encode())
        if scheme.lower() != "bearer" or not allowed:
            raise _unknown()
        return
    try:
        answer = auth(request)
        if inspect.isawaitable(answer):
            answer = await answer
    except PermissionError as error:
        raise Problem(403, str(error) or "not allowed") from error
    if not answer:
        raise _unknown()


def _unknown() -> Problem:
    return Problem(401, "a valid bearer token is needed", headers={"www-authenticate": "Bearer"})
