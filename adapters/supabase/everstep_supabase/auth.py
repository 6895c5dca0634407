"""Who calls: Supabase's tokens on the HTTP routes, and a secret of one's own on wake-ups and Database Webhooks.

Supabase signs tokens with one secret (HS256) or with keys it publishes (ES256, RS256); either is checked here, with the
audience and the role. It does not sign webhooks, so that what comes from the database carries a secret header, compared
in constant time.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from everstep.errors import InvalidArgument

SECRET_HEADER = "x-everstep-secret"
MIN_SECRET = 16


_KEPT = 300
"""Seconds for which published keys are kept: a key that was taken back is good for as long."""
_AGAIN = 30
"""Seconds between two looks for a key that nobody knows, which costs a request: a caller can name any."""


class NotAllowed(Exception):
    """The caller is not who it must be. `status` is 401 without credentials that hold, 403 with the wrong role, and 503
    where the keys that would tell cannot be had now."""

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
    keys: str | Path | None = None,
    audience: str = "authenticated",
    roles: Sequence[str] = ("authenticated", "service_role"),
) -> Callable[[str], dict[str, Any]]:
    """A check of Supabase's tokens: give it one, get its claims.

    Args:
        secret: the project's JWT secret, where it signs by HS256.
        url: of the project, where it signs by keys it publishes (`/auth/v1/.well-known/jwks.json`). They are kept for
            five minutes; a new one is found sooner, by a token that names it.
        keys: the path of a file with those keys (JWKS) instead, read again when it changes.
        audience: of a user's token; a service key has none.
        roles: who may come in. `anon`, which everybody has, is not among them.

    The check raises NotAllowed.

    Raises:
        InvalidArgument: none of secret, url and keys was given, or several; or the file holds no keys.
    """
    import jwt

    if [secret, url, keys].count(None) != 2:
        raise InvalidArgument("verify_token: give secret=, url= or keys=, one of them")
    public = _published(url) if url is not None else _Listed(keys) if keys is not None else None

    def check(token: str) -> dict[str, Any]:
        try:
            options: Any = {"require": ["exp", "role"], "verify_aud": False}
            if public is not None:
                # The key says which algorithm it is for; the token has no say in that.
                key = public.get_signing_key_from_jwt(token)
                claims = jwt.decode(token, key, algorithms=["ES256", "RS256"], options=options)
            else:
                claims = jwt.decode(token, secret or "", algorithms=["HS256"], options=options)
        except jwt.PyJWKClientConnectionError as error:
            raise NotAllowed(503, f"the keys cannot be had now: {error}") from None
        except jwt.PyJWTError as error:
            raise NotAllowed(401, f"the token does not hold: {error}") from None
        if claims["role"] not in roles:
            raise NotAllowed(403, f"role {claims['role']!r} may not do this")
        if claims["role"] != "service_role" and claims.get("aud") != audience:
            raise NotAllowed(401, "the token is for another audience")
        return dict(claims)

    return check


class _Listed:
    """The keys of a file; those known so far, where it cannot be read for the moment."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._read_at = 0
        self._keys: dict[str | None, Any] = {}
        try:
            self._look()
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"{path} holds no keys: {error}") from None

    def _look(self) -> None:
        import jwt

        changed = self._path.stat().st_mtime_ns
        if changed != self._read_at:
            try:
                found = jwt.PyJWKSet.from_json(self._path.read_text(encoding="utf-8"))
            except (jwt.PyJWTError, AttributeError, TypeError) as error:
                raise ValueError(str(error)) from None
            self._keys = {key.key_id: key for key in found.keys}
            self._read_at = changed

    def get_signing_key_from_jwt(self, token: str) -> Any:
        import jwt

        with suppress(OSError, ValueError):
            self._look()
        name = jwt.get_unverified_header(token).get("kid")
        if name not in self._keys:
            raise jwt.PyJWKClientError(f"there is no key {name!r}")
        return self._keys[name]


@lru_cache(maxsize=8)
def _published(url: str) -> Any:
    import jwt

    place = f"{url.rstrip('/')}/auth/v1/.well-known/jwks.json"
    return jwt.PyJWKClient(place, lifespan=_KEPT, cooldown_duration=_AGAIN, timeout=10)
