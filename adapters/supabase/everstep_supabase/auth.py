"""Who calls: Supabase's tokens on the HTTP routes, and a secret of one's own on wake-ups and Database Webhooks.

Supabase signs tokens with one secret (HS256) or with keys it publishes (ES256, RS256); either is checked here, with the
audience and the role. It does not sign webhooks, so that what comes from the database carries a secret header, compared
in constant time.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from everstep.errors import InvalidArgument

SECRET_HEADER = "x-everstep-secret"
MIN_SECRET = 16


class NotAllowed(Exception):
    """The caller is not who it must be. `status` is 401 without credentials that hold, 403 with the wrong role."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check_secret(secret: str) -> bytes:
    """A shared secret as bytes. Raises InvalidArgument when it is too short to be one."""
    if len(secret.encode()) < MIN_SECRET:
        raise InvalidArgument(f"the secret of {SECRET_HEADER} must have at least {MIN_SECRET} bytes")
    return secret.encode()


def same(given: str | None, secret: bytes) -> bool:
    """Whether a header holds the secret, in constant time."""
    return given is not None and hmac.compare_digest(given.encode("latin-1", "replace"), secret)


def verify_token(
    *,
    secret: str | None = None,
    url: str | None = None,
    audience: str = "authenticated",
    roles: Sequence[str] = ("authenticated", "service_role"),
) -> Callable[[str], dict[str, Any]]:
    """A check of Supabase's tokens: give it one, get its claims.

    Args:
        secret: the project's JWT secret, where it signs by HS256.
        url: of the project, where it signs by keys it publishes (`/auth/v1/.well-known/jwks.json`, kept for a while).
        audience: of a user's token; a service key has none.
        roles: who may come in. `anon`, which everybody has, is not among them.

    The check raises NotAllowed.

    Raises:
        InvalidArgument: neither secret nor url was given, or both.
    """
    import jwt

    if (secret is None) == (url is None):
        raise InvalidArgument("verify_token: give secret= or url=, one of them")
    keys = _published(url) if url is not None else None

    def check(token: str) -> dict[str, Any]:
        try:
            options: Any = {"require": ["exp", "role"], "verify_aud": False}
            if keys is not None:
                key = keys.get_signing_key_from_jwt(token).key
                claims = jwt.decode(token, key, algorithms=["ES256", "RS256"], options=options)
            else:
                claims = jwt.decode(token, secret or "", algorithms=["HS256"], options=options)
        except jwt.PyJWTError as error:
            raise NotAllowed(401, f"the token does not hold: {error}") from None
        if claims["role"] not in roles:
            raise NotAllowed(403, f"role {claims['role']!r} may not do this")
        if claims["role"] != "service_role" and claims.get("aud") != audience:
            raise NotAllowed(401, "the token is for another audience")
        return dict(claims)

    return check


@lru_cache(maxsize=8)
def _published(url: str) -> Any:
    import jwt

    return jwt.PyJWKClient(f"{url.rstrip('/')}/auth/v1/.well-known/jwks.json", cache_keys=True, timeout=10)
