"""Errors as `application/problem+json` (RFC 9457). A problem says whose turn it is: 4xx the caller's, 5xx ours.

A 500 says nothing of the inside; the log has the trace.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from everstep import errors

from .strict import dumps

log = logging.getLogger("everstep.http")

_TITLES = {
    400: "Bad input",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    411: "Length required",
    413: "Too large",
    415: "Wrong content type",
    429: "Too many requests",
    500: "Internal error",
    501: "Not implemented",
    503: "Not available now",
    507: "Store full",
}


class Problem(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of the response.
        detail: one sentence for the caller.
        kind: the last part of the problem's `type`.
        field: the field, parameter or path segment that is wrong.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = "",
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind or _TITLES[status].lower().replace(" ", "-")
        self.field = field
        self.headers = headers
        self.extra = extra

    def response(self) -> Response:
        body: dict[str, Any] = {
            "type": f"urn:everstep:{self.kind}",
            "title": _TITLES[self.status],
            "status": self.status,
            "detail": self.detail,
        }
        if self.field is not None:
            body["field"] = self.field
        body.update(self.extra)
        headers = {"cache-control": "no-store", **(self.headers or {})}
        return Response(dumps(body), self.status, headers, "application/problem+json")


def bad(field: str, detail: str) -> Problem:
    return Problem(400, detail, field=field)


def problem_of(error: Exception, field: str | None = None) -> Problem:
    """What an error of the core means to an HTTP caller. `field` is what the route took from the caller, if one thing.

    An error nobody foresaw is a 500, and its trace goes to the log.
    """
    text = str(error)
    match error:
        case Problem():
            return error
        case errors.UnknownFunction():
            return Problem(404, text, kind="unknown-function", field="name")
        case errors.NotFound():
            return Problem(404, text, field=field)
        case errors.AlreadySettled():
            return Problem(409, text, kind="already-settled", field="id")
        case errors.Conflict():
            return Problem(409, text, field="id")
        case errors.PayloadTooLarge():
            return Problem(413, text, field=field)
        case errors.InvalidId():
            return Problem(400, text, kind="invalid-id", field="id")
        case errors.NotSerializable() | errors.UsageError():
            return Problem(400, text, field=field)
        case errors.StoreFull():
            return Problem(507, text, kind="store-full")
        case errors.StoreReadOnly() | errors.StoreTooNew() | errors.StoreCorrupted():
            log.error("the store cannot be used: %s", text)
            return Problem(503, text, kind="store-unusable")
        case errors.PlatformError():
            log.warning("the platform is in trouble: %s", text)
            return Problem(
                503, "the store is not available now; nothing is lost, try again", headers={"retry-after": "1"}
            )
        case _:
            log.error("a request failed", exc_info=error)
            return Problem(500, "something went wrong here; the log has the details")
