"""Who may use the HTTP routes: a bearer token, or whoever Cloudflare Access has let through.

A Worker's address is public, so nobody may by default. Access signs what it lets through; the signature, the audience,
the issuer and the time are checked here, since a request can reach a Worker by ways that Access does not guard.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from everstep.clock import Clock, SystemClock
from everstep.nesting import loads

if TYPE_CHECKING:
    from everstep.http.access import Principal

_log = logging.getLogger("everstep")

HEADER = "cf-access-jwt-assertion"
_SKEW = 60
"""Seconds by which clocks may differ."""
_KEPT = 300_000
"""Milliseconds for which the team's keys are kept: one that was taken back is good for as long."""
_AGAIN = 10_000
"""Milliseconds between two looks for a key that nobody knows, which anybody can name."""
_PATIENCE = 10
"""Seconds until keys that do not come count as not to be had."""

Keys = Callable[[], Awaitable[list[dict[str, Any]]]]
"""Fetches the team's public keys (JWK)."""
Verify = Callable[[dict[str, Any], bytes, bytes], Awaitable[bool]]
"""Whether a signature (RS256) is that of a key over some bytes."""


class Everybody:
    """That the routes are open to all."""


everybody = Everybody()


def bearer(token: str | None) -> Callable[[Any], bool]:
    """A check for one bearer token; without one, nobody passes."""

    def check(request: Any) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(errors="replace"), (token or "").encode())
        return bool(token) and same and scheme.lower() == "bearer"

    return check


def access(
    team: str, audience: str, *, keys: Keys | None = None, verify: Verify | None = None, clock: Clock | None = None
) -> Callable[[Any], Awaitable[Principal | None]]:
    """A check that Cloudflare Access let a request through; who did passes under the name that Access knows.

    Args:
        team: the team's domain, `example.cloudflareaccess.com`.
        audience: the tag of the Access application.
        keys, verify, clock: the platform's by default.

    The check raises Problem 503 where the team's keys cannot be had.
    """
    issuer = f"https://{team}"
    now = clock if clock is not None else SystemClock()
    known = _Keys(keys if keys is not None else _keys_of(issuer), now)
    checked = verify if verify is not None else _web_crypto

    async def check(request: Any) -> Principal | None:
        try:
            signed, _, signature = request.headers.get(HEADER, "").rpartition(".")
            header, claims = (loads(_decoded(part)) for part in signed.split("."))
            proof = _decoded(signature)
            # The algorithm is the key's, and Access has one: a token has no say in it.
            if header["alg"] != "RS256" or "crit" in header or claims["iss"] != issuer:
                return None
            given = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
            seconds = now.now() / 1000
            timely = claims["exp"] + _SKEW > seconds and claims.get("nbf", 0) - _SKEW < seconds
            if audience not in given or not timely:
                return None
            name, kid = claims.get("email") or claims.get("common_name") or "", str(header["kid"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        key = await known.get(kid)
        if key is None or not await checked(key, proof, signed.encode()):
            return None
        from everstep.http.access import Principal

        return Principal(role="admin", name=str(name))

    return check


class _Keys:
    """A team's public keys, by their ids."""

    def __init__(self, fetch: Keys, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._read_at: int | None = None
        self._held: dict[str, dict[str, Any]] = {}

    async def get(self, kid: str) -> dict[str, Any] | None:
        """The key of this id. Raises Problem 503."""
        now = self._clock.now()
        age = None if self._read_at is None else now - self._read_at
        if age is None or age > _KEPT or (kid not in self._held and age > _AGAIN):
            try:
                async with asyncio.timeout(_PATIENCE):
                    found = {str(key["kid"]): key for key in await self._fetch() if _is_rsa(key)}
            except Exception as error:
                from everstep.http.problems import Problem

                _log.warning("everstep: the keys of Access cannot be had: %s: %s", type(error).__name__, error)
                detail = "who may pass cannot be told now; try again"
                raise Problem(503, detail, headers={"retry-after": "5"}) from error
            self._held, self._read_at = found, now
        return self._held.get(kid)


def _is_rsa(key: Mapping[str, Any]) -> bool:
    return key.get("kty") == "RSA" and key.get("alg", "RS256") == "RS256" and key.get("use", "sig") == "sig"


def _decoded(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars="-_", validate=True)


def _keys_of(issuer: str) -> Keys:
    async def fetch() -> list[dict[str, Any]]:
        import workers  # type: ignore[import-not-found]

        response = await workers.fetch(f"{issuer}/cdn-cgi/access/certs")
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        found: list[dict[str, Any]] = (loads(await response.text()))["keys"]
        return found

    return fetch


async def _web_crypto(key: dict[str, Any], signature: bytes, message: bytes) -> bool:
    import js  # type: ignore[import-not-found]
    from pyodide.ffi import JsException, to_js  # type: ignore[import-not-found]

    plain = {"kty": "RSA", "n": key.get("n"), "e": key.get("e")}
    how = to_js({"name": "RSASSA-PKCS1-v1_5", "hash": "SHA-256"}, dict_converter=js.Object.fromEntries)
    public = to_js(plain, dict_converter=js.Object.fromEntries)
    try:
        imported = await js.crypto.subtle.importKey("jwk", public, how, False, to_js(["verify"]))
        return bool(await js.crypto.subtle.verify(how, imported, to_js(signature), to_js(message)))
    except JsException as error:
        _log.warning("everstep: a key of Access cannot be used: %s", error)
        return False
