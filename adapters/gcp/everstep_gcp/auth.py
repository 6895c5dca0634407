"""Who calls: a wake-up and an event carry a token that Google signed, and nothing is read before it is checked.

The library checks the signature, the times and the audience. It checks no issuer and no e-mail address, and would fetch
the certificates for every token: those are kept here for as long as their answer allows, and fetched once more for a
key that is not among them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from everstep.errors import PlatformError

from .settings import CERTIFICATES

_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
_SKEW = 10
_LONGEST = 8192
_KEPT = 3600.0
_SPARED = 30.0

Fetch = Callable[[str], Awaitable[tuple[Mapping[str, Any], float]]]
"""The certificates at an address, by key, and for how many seconds they may be kept. Raises PlatformError."""


class Unauthorized(Exception):
    """The caller did not prove who it is; the message says what is wrong, and nothing of the token."""


class Verifier:
    """Checks tokens.

    Args:
        audiences: what a token may be made out to.
        accounts: e-mail addresses of the service accounts that may call.
        certificates: where the keys are published.
        fetch: gets them; by default over HTTPS.
    """

    def __init__(
        self,
        audiences: Collection[str],
        accounts: Collection[str],
        *,
        certificates: str = CERTIFICATES,
        fetch: Fetch | None = None,
    ) -> None:
        self._audiences = list(audiences)
        self._accounts = frozenset(accounts)
        self._address = certificates
        self._fetch: Fetch = fetch if fetch is not None else fetch_certificates
        self._certificates: Mapping[str, Any] = {}
        self._fetched = 0.0
        self._kept_until = 0.0
        self._turn: asyncio.Lock | None = None

    async def check(self, authorization: str) -> str:
        """The caller's e-mail address, given its `Authorization` header.

        Raises:
            Unauthorized: it has no valid token, or is none of the accounts that may call.
            PlatformError: the certificates cannot be had now.
        """
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("no bearer token")
        if len(token) > _LONGEST or not token.isascii() or token.count(".") != 2:
            raise Unauthorized("no identity token")
        claims = await self._claims(token)
        if claims.get("iss") not in _ISSUERS:
            raise Unauthorized("another issuer")
        if claims.get("email_verified") is not True or claims.get("email") not in self._accounts:
            raise Unauthorized("another account")
        return str(claims["email"])

    async def _claims(self, token: str) -> Mapping[str, Any]:
        from google.auth import exceptions
        from google.auth import jwt as untyped

        jwt: Any = untyped

        if not self._audiences:
            raise Unauthorized("no audience is configured")
        try:
            key = jwt.decode_header(token).get("kid")
            certificates = await self._known(key)
            claims: Mapping[str, Any] = jwt.decode(
                token, certs=certificates, audience=self._audiences, clock_skew_in_seconds=_SKEW
            )
        except (ValueError, TypeError, RecursionError, exceptions.GoogleAuthError) as error:
            raise Unauthorized(_reason(str(error))) from error
        return claims

    async def _known(self, key: object) -> Mapping[str, Any]:
        now = time.monotonic()
        if now < self._kept_until and (key in self._certificates or now < self._fetched + _SPARED):
            return self._certificates
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            if now >= self._fetched:
                self._certificates, keep = await self._fetch(self._address)
                self._fetched = time.monotonic()
                self._kept_until = self._fetched + keep
        return self._certificates


async def fetch_certificates(address: str) -> tuple[Mapping[str, Any], float]:
    """Get certificates over HTTP. Raises PlatformError."""
    return await asyncio.to_thread(_fetch, address)


def _fetch(address: str) -> tuple[Mapping[str, Any], float]:
    import requests

    try:
        answer = requests.get(address, timeout=10)
        answer.raise_for_status()
        found = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise PlatformError(f"the certificates of tokens cannot be had: {error}") from error
    return found, _max_age(answer.headers.get("Cache-Control", ""))


def _max_age(header: str) -> float:
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "max-age" and value.isdecimal():
            return float(value)
    return _KEPT


def _reason(said: str) -> str:
    for word, reason in (("expired", "expired"), ("udience", "another audience"), ("early", "not valid yet")):
        if word in said:
            return reason
    return "not signed by a known key"
