"""Signed links for a person: whoever holds the token may give one promise one of the answers written in it.

A token is `payload.signature`: the payload says everything (which promise, which answers, until when), the signature
is HMAC-SHA256 over it, and nothing is stored. So a token cannot be taken back one by one: settle the promise, let the
token expire, or change the secret. Anyone who sees the link can read the payload; it carries no secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .errors import InvalidArgument, UsageError
from .ids import check_any

MIN_SECRET_BYTES = 16
_PURPOSE = b"everstep approve 1\n"

Secret = str | bytes


class Grant(NamedTuple):
    """What a token allows.

    Attributes:
        id: the promise it settles.
        expires_at: milliseconds.
        choices: the value of each answer, by the label on its button.
        question: what the person is asked; "" for none.
    """

    id: str
    expires_at: int
    choices: Mapping[str, Any]
    question: str = ""


class TokenAltered(UsageError):
    """The token was not signed with this secret, or was changed or cut off since."""


class TokenExpired(UsageError):
    """The token is genuine and its time is over."""


APPROVE: Mapping[str, Any] = {"Approve": True, "Decline": False}


def sign(secret: Secret, id: str, expires_at: int, *, choices: Mapping[str, Any] = APPROVE, question: str = "") -> str:
    """A token for `/approve/{token}`, safe in a URL as it is.

    Args:
        secret: at least 16 bytes, the same that the ASGI app was given.
        id: of the promise.
        expires_at: milliseconds since 1970.
        choices: the JSON value that each answer resolves the promise with, by the label on its button.
        question: shown to the person.

    Raises:
        InvalidArgument: the secret is short, there is no choice, or a value is not JSON.
        InvalidId: the id is no id.
    """
    key = check_secret(secret)
    check_any(id)
    if isinstance(expires_at, bool) or not isinstance(expires_at, int):
        raise InvalidArgument(f"expires_at must be whole milliseconds, not {expires_at!r}")
    if not choices or not all(isinstance(label, str) and label for label in choices):
        raise InvalidArgument("choices must be a mapping from labels to values, with at least one")
    body = {"i": id, "e": expires_at, "c": dict(choices), "q": question}
    try:
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"choices must be JSON: {error}") from None
    payload = _encode(text.encode())
    return f"{payload}.{_encode(_signature(key, payload))}"


def verify(secret: Secret | Sequence[Secret], token: str, now: int) -> Grant:
    """What a token allows at `now` (milliseconds).

    Args:
        secret: one, or several while an old one is being replaced.

    Raises:
        TokenAltered: it is not ours, or not as it was signed.
        TokenExpired: it was ours and is over.
        InvalidArgument: the secret is short.
    """
    secrets = [secret] if isinstance(secret, (str, bytes)) else list(secret)
    payload, dot, signature = token.partition(".")
    given = _decode(signature)
    genuine = False
    for one in secrets:
        # Every secret is compared: the time taken says nothing about which one fits.
        genuine |= hmac.compare_digest(_signature(check_secret(one), payload), given)
    if not dot or not genuine:
        raise TokenAltered("this link is not as it was sent")
    body = json.loads(_decode(payload))
    if now >= body["e"]:
        raise TokenExpired("this link has expired")
    return Grant(body["i"], body["e"], body["c"], body["q"])


def check_secret(secret: Secret) -> bytes:
    """The secret as bytes. Raises InvalidArgument when it is too short to protect anything."""
    key = secret.encode() if isinstance(secret, str) else secret
    if len(key) < MIN_SECRET_BYTES:
        raise InvalidArgument(
            f"the secret for signed links has {len(key)} bytes; at least {MIN_SECRET_BYTES} are needed"
        )
    return key


def _signature(key: bytes, payload: str) -> bytes:
    return hmac.new(key, _PURPOSE + payload.encode(errors="replace"), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Empty for anything that is not exactly what `_encode` gives: one token has one spelling."""
    try:
        data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return b""
    return data if _encode(data) == text else b""
