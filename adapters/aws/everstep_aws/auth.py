"""Who may call over HTTP: whom AWS has authorised already, or who bears the function's own token.

A function URL with `AuthType: AWS_IAM`, an IAM, JWT or Lambda authoriser of API Gateway: each leaves its mark in the
request's context, which a caller cannot forge. Without such a mark and without a token, nobody passes; signed approval
links are their own proof and need neither.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.requests import Request


def authorised_by_aws(payload: Any) -> bool:
    """Whether the event of an HTTP request says that AWS has authorised its caller."""
    context = payload.get("requestContext", {}) if isinstance(payload, dict) else {}
    authorizer = context.get("authorizer") or {}
    if any(authorizer.get(kind) for kind in ("iam", "jwt", "lambda")):
        return True
    # API Gateway v1 writes a Lambda authoriser's or Cognito's answer flat, and an IAM caller into the identity.
    identity = context.get("identity") or {}
    return bool(authorizer.get("principalId") or authorizer.get("claims") or identity.get("userArn"))


class Gate:
    """Lets a request pass that AWS has authorised, or that bears `token`.

    Args:
        token: of the function's own; None: AWS alone decides.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: Request) -> bool:
        if authorised_by_aws(request.scope.get("aws.event")):
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        expected = self._token
        return (
            expected is not None
            and scheme.lower() == "bearer"
            and hmac.compare_digest(given.strip().encode(errors="replace"), expected.encode())
        )
