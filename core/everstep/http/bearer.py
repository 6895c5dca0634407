"""JSON Web Tokens: RS256, ES256 and HS256, verified by PyJWT with keys from a file, the environment or a JWKS file.

Which algorithm is right follows from the key alone, never from the token: a public key is no HMAC secret, and "none" is
nothing. `exp` is required. The `prefix` claim limits the ids (protocol: ids carry their tenant in front); without one,
or with an empty one, only an administrator passes. `role` is "admin" or "reader"; `groups` names the groups whose
messages may be pulled.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.requests import Request

from everstep.errors import InvalidArgument

from .access import Principal
from .auth import TOKEN
from .strict import loads

if TYPE_CHECKING:
    from jwt import PyJWK

log = logging.getLogger("everstep.http")

KEY = "EVERSTEP_JWT_KEY"
ALGORITHMS = ("RS256", "ES256", "HS256")
_SECRET_BYTES = 32


class _Key(NamedTuple):
    """A key that verifies, the one algorithm it is for, and the id it has in a JWKS."""

    key: Any
    algorithm: str
    id: str | None = None


class Bearer:
    """Verifies bearer tokens; to be passed as `auth=`.

    Args:
        key: a public key in PEM, or the secret of HS256 (at least 32 bytes).
        jwks: the path of a JWKS file, read again when it changes and a token names a key that is not in it.
        issuer, audience: what `iss` and `aud` must be, where given.
        leeway: seconds by which clocks may differ.

    Raises:
        InvalidArgument: a key is missing, too short or of another kind.
        ImportError: PyJWT is missing; `pip install 'everstep[gateway]'` brings it.
    """

    def __init__(
        self,
        key: str | bytes | None = None,
        *,
        jwks: str | Path | None = None,
        issuer: str | None = None,
        audience: str | None = None,
        leeway: float = 10.0,
    ) -> None:
        try:
            import jwt  # noqa: F401
        except ImportError as error:
            raise ImportError("tokens need PyJWT: pip install 'everstep[gateway]'", name="jwt") from error
        if (key is None) == (jwks is None):
            raise InvalidArgument("give either a key or the path of a JWKS file")
        self._jwks = None if jwks is None else Path(jwks)
        self._read_at = 0
        self._keys = [_key(key)] if key is not None else self._read()
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> Bearer:
        """With the key, or the JWKS, in a file. Raises InvalidArgument where it cannot be read."""
        data = _bytes(Path(path))
        if data.lstrip().startswith(b"{"):
            return cls(jwks=path, **options)
        return cls(data.strip(), **options)

    @classmethod
    def from_environment(cls, name: str = KEY, **options: Any) -> Bearer:
        """With the key in an environment variable. Raises InvalidArgument where there is none."""
        text = os.environ.get(name)
        if not text:
            raise InvalidArgument(f"the environment variable {name} holds no key")
        return cls(text, **options)

    def __call__(self, request: Request) -> Principal | None:
        """Who a request's token names; None where it has none or one that does not hold. Raises PermissionError."""
        token = request.scope.get(TOKEN)
        claims = self.claims(token) if token else None
        return None if claims is None else principal_of(claims)

    def claims(self, token: str) -> Mapping[str, Any] | None:
        """The claims of a token; None where it does not hold."""
        import jwt

        try:
            header = jwt.get_unverified_header(token)
            for key in self._candidates(header):
                try:
                    return self._decode(token, key)
                except jwt.InvalidSignatureError:
                    continue
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            log.info("a token was refused: %s", error)
        return None

    def _decode(self, token: str, key: _Key) -> Mapping[str, Any]:
        import jwt

        required = ["exp", *(["iss"] if self._issuer else []), *(["aud"] if self._audience else [])]
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm],
            issuer=self._issuer,
            audience=self._audience,
            leeway=self._leeway,
            options={"require": required, "verify_aud": self._audience is not None},
        )
        return claims

    def _candidates(self, header: Mapping[str, Any]) -> list[_Key]:
        id = header.get("kid")
        if self._jwks is None or id is None:
            return [key for key in self._keys if key.algorithm == header.get("alg")]
        if not any(key.id == id for key in self._keys) and _changed_at(self._jwks) != self._read_at:
            try:
                self._keys = self._read()
            except InvalidArgument as error:
                log.error("the keys known so far are kept: %s", error)
        return [key for key in self._keys if key.id == id and key.algorithm == header.get("alg")]

    def _read(self) -> list[_Key]:
        from jwt import PyJWK, PyJWTError

        assert self._jwks is not None
        self._read_at = _changed_at(self._jwks)
        try:
            found = loads(_bytes(self._jwks))
            listed = found.get("keys", [found])
            keys = [_from_jwk(PyJWK(one), one) for one in listed if one.get("use", "sig") == "sig"]
        except (PyJWTError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidArgument(f"{self._jwks} is no JWKS: {error}") from None
        known = [key for key in keys if key is not None]
        if not known:
            raise InvalidArgument(f"{self._jwks} holds no key for {', '.join(ALGORITHMS)}")
        return known


def principal_of(claims: Mapping[str, Any]) -> Principal:
    """Who verified claims name. Raises PermissionError where they allow nothing."""
    role, prefix, groups = claims.get("role"), claims.get("prefix"), claims.get("groups")
    role = role.lower() if isinstance(role, str) else ""
    name = claims.get("sub")
    named = name if isinstance(name, str) else prefix if isinstance(prefix, str) else ""
    if role != "admin" and (not isinstance(prefix, str) or not prefix):
        raise PermissionError("this token has no prefix claim, so that there is nothing it may touch")
    allowed = tuple(one for one in groups if isinstance(one, str)) if isinstance(groups, list) else None
    return Principal(prefix if isinstance(prefix, str) else "", role, allowed, named)


def _key(given: str | bytes) -> _Key:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = given.encode() if isinstance(given, str) else given
    if b"-----BEGIN" not in data:
        if len(data) < _SECRET_BYTES:
            raise InvalidArgument(f"a secret for HS256 has at least {_SECRET_BYTES} bytes, this one {len(data)}")
        return _Key(data, "HS256")
    try:
        key = load_pem_public_key(data)
    except ValueError as error:
        raise InvalidArgument(f"this is no public key in PEM: {error}") from None
    if isinstance(key, RSAPublicKey):
        if key.key_size < 2048:
            raise InvalidArgument(f"an RSA key has at least 2048 bits, this one {key.key_size}")
        return _Key(key, "RS256")
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return _Key(key, "ES256")
    raise InvalidArgument("a public key must be RSA, or of the elliptic curve P-256")


def _from_jwk(jwk: PyJWK, data: Mapping[str, Any]) -> _Key | None:
    expected = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("oct", None): "HS256"}
    algorithm = expected.get((data.get("kty", ""), data.get("crv")))
    if algorithm is None or data.get("alg", algorithm) != algorithm:
        return None
    return _Key(jwk.key, algorithm, data.get("kid"))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror or error}") from None


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
