"""Who may use the HTTP routes: a bearer token, or whoever Cloudflare Access has let through.

A Worker's address is public, so nobody may by default. Access signs what it lets through; the signature, the audience,
the issuer and the time are checked here, since a request can reach a Worker by ways that Access does not guard.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from everstep.clock import Clock, SystemClock
from everstep.nesting import loads

HEADER = "cf-access-jwt-assertion"
_SKEW = 60
_FRESH = 3600_000

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
) -> Callable[[Any], Awaitable[bool]]:
    """A check that Cloudflare Access let a request through.

    Args:
        team: the team's domain, `example.cloudflareaccess.com`.
        audience: the tag of the Access application.
        keys, verify, clock: the platform's by default.
    """
    issuer = f"https://{team}"
    now = clock if clock is not None else SystemClock()
    fetch = keys if keys is not None else _keys_of(issuer)
    checked = verify if verify is not None else _web_crypto
    cached: dict[str, Any] = {"at": 0, "keys": []}

    async def known(kid: str) -> dict[str, Any] | None:
        for again in (False, True):
            if again or now.now() - cached["at"] > _FRESH:
                cached.update(keys=await fetch(), at=now.now())
            for key in cached["keys"]:
                if key.get("kid") == kid:
                    return dict(key)
        return None

    async def check(request: Any) -> bool:
        parts = request.headers.get(HEADER, "").split(".")
        if len(parts) != 3:
            return False
        try:
            header, claims, signature = (
                loads(_decoded(parts[0])),
                loads(_decoded(parts[1])),
                _decoded(parts[2]),
            )
            if header["alg"] != "RS256" or claims["iss"] != issuer:
                return False
            given = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
            seconds = now.now() / 1000
            timely = claims["exp"] + _SKEW > seconds and claims.get("nbf", 0) - _SKEW < seconds
            if audience not in given or not timely:
                return False
            key = await known(header["kid"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        return key is not None and await checked(key, signature, f"{parts[0]}.{parts[1]}".encode())

    return check


def _decoded(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars="-_", validate=True)


def _keys_of(issuer: str) -> Keys:
    async def fetch() -> list[dict[str, Any]]:
        import workers  # type: ignore[import-not-found]

        response = await workers.fetch(f"{issuer}/cdn-cgi/access/certs")
        found: list[dict[str, Any]] = (await response.json())["keys"]
        return found

    return fetch


async def _web_crypto(key: dict[str, Any], signature: bytes, message: bytes) -> bool:
    import js  # type: ignore[import-not-found]
    from pyodide.ffi import to_js  # type: ignore[import-not-found]

    how = to_js({"name": "RSASSA-PKCS1-v1_5", "hash": "SHA-256"}, dict_converter=js.Object.fromEntries)
    public = to_js({**key, "key_ops": ["verify"]}, dict_converter=js.Object.fromEntries)
    imported = await js.crypto.subtle.importKey("jwk", public, how, False, to_js(["verify"]))
    return bool(await js.crypto.subtle.verify(how, imported, to_js(signature), to_js(message)))
