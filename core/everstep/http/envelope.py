"""`POST /`: the Resonate protocol's envelope, version 2026-04-01, for official SDKs in any language.

Whatever goes wrong, the answer is `application/json` in the same envelope, with the status in the head and on the HTTP
response alike (rule C4): a problem document would be taken for an outdated server.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from everstep.protocol import VERSION
from everstep.protocol_json import BadRequest, parse, render, render_error

from .access import EVERYBODY, Principal, authorize
from .body import read
from .problems import Problem, bad, problem_of
from .strict import dumps, loads

if TYPE_CHECKING:
    from everstep.client import Client

    from .debug import Debug

log = logging.getLogger("everstep.http")
_TOKEN = "auth"


class Envelope:
    """Answers requests of the protocol.

    Args:
        client: whose service carries them out.
        check: lets a request pass, with the token of the envelope's head where the request has none itself, or raises
            Problem 401, 403 or 429.
        max_body: bytes.
        debug: carries out the debug requests, where they are switched on.
        changed: called after each request that was carried out.
    """

    def __init__(
        self,
        client: Callable[[], Client],
        check: Callable[[Request, str | None], Awaitable[Principal]],
        max_body: int,
        debug: Debug | None,
        changed: Callable[[], None],
    ) -> None:
        self._client = client
        self._check = check
        self._max_body = max_body
        self._debug = debug
        self._changed = changed

    async def answer(self, request: Request) -> Response:
        """Never raises, but for a caller who has left."""
        envelope: Any = None
        try:
            envelope = await self._read(request)
            principal = await self._check(request, _token(envelope))
            return _response(await self._perform(envelope, principal))
        except ClientDisconnect:
            raise
        except BadRequest as error:
            return refusal(envelope, Problem(400, str(error)))
        except Problem as error:
            return refusal(envelope, error)
        except Exception as error:
            return refusal(envelope, problem_of(error))

    async def _read(self, request: Request) -> Any:
        data = await read(request, self._max_body)
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            # Browsers send any other type to other sites without asking first.
            raise Problem(415, "send the envelope as application/json")
        try:
            return loads(data)
        except ValueError as error:
            raise bad("body", f"the body {error}") from None

    async def _perform(self, envelope: Any, principal: Principal) -> dict[str, Any]:
        kind = envelope.get("kind") if isinstance(envelope, dict) else None
        if isinstance(kind, str) and kind.startswith("debug."):
            return await self._debugged(envelope, kind, principal)
        asked = parse(envelope)
        version = envelope["head"]["version"]
        if version != VERSION:
            raise BadRequest("head.version", f"must be {VERSION!r}, the only version spoken here, not {version!r}")
        reply = await self._client().service.perform(authorize(principal, asked))
        self._changed()
        return render(asked, reply, envelope["head"]["corrId"])

    async def _debugged(self, envelope: dict[str, Any], kind: str, principal: Principal) -> dict[str, Any]:
        if self._debug is None:
            raise Problem(403, "debug requests are not switched on here")
        if principal is EVERYBODY or not principal.admin:
            raise Problem(403, "debug requests are for an administrator's token")
        data = await self._debug.perform(kind, envelope.get("data"))
        answer = render_error(envelope, 200, "")
        answer["data"] = data
        self._changed()
        return answer


def refusal(envelope: object, problem: Problem) -> Response:
    """A problem in the protocol's envelope."""
    headers = {name: text for name, text in (problem.headers or {}).items() if name != "content-type"}
    return _response(render_error(envelope, problem.status, problem.detail), headers)


def _response(answer: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    status = int(answer["head"]["status"])
    return Response(dumps(answer), status, {"cache-control": "no-store", **(headers or {})}, "application/json")


def _token(envelope: Any) -> str | None:
    """The token an SDK puts into the head of its requests."""
    head = envelope.get("head") if isinstance(envelope, dict) else None
    token = head.get(_TOKEN) if isinstance(head, dict) else None
    return token if isinstance(token, str) and token else None
