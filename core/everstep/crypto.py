"""Encryption of stored values: two methods, and a key id beside every ciphertext so that keys can be rotated.

Losing a key must never lose a run. So a value that cannot be decrypted is a DecodeError of the invocation, which ends
and is tried again, and never an outcome that a workflow could see or a record could hold.

Reading randomness is an edge of the system; this module is one for the nonce alone.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Any, Protocol

from .errors import DecodeError, InvalidArgument

__all__ = ["AesGcm", "Encryptor"]

_NONCE = 12


class Encryptor(Protocol):
    """What encrypts stored values. An attribute `digest_key: bytes` may key the digests of arguments too (rule I6)."""

    def encrypt(self, data: bytes) -> tuple[str, bytes]:
        """Return the id of the key that was used, which is stored in the clear, and the ciphertext."""
        ...

    def decrypt(self, key_id: str, data: bytes) -> bytes:
        """Return what was encrypted under that key id; raise PlatformError where that is not possible now, and anything
        else where it is not."""
        ...


class AesGcm:
    """AES-256-GCM with a random nonce of 96 bits, through the `cryptography` package (`pip install everstep[crypto]`).

    To rotate: add a key, make it `current`, and keep the old ones for as long as values under them are kept.
    A key should encrypt no more than 2**32 values.

    Args:
        keys: 32 bytes each, by key id.
        current: the key id to encrypt with.
        digest_key: keys the digests that tell equal work from different work under one id (rule I6). By default it
            is derived from the first key of the mapping, so keep that one first, or name it here before it goes.

    Raises:
        ImportError: `cryptography` is not installed.
        InvalidArgument: a key is not 32 bytes, or `current` is none of them.
    """

    def __init__(self, keys: Mapping[str, bytes], current: str, *, digest_key: bytes | None = None) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise ImportError("AES-256-GCM needs the `cryptography` package: pip install 'everstep[crypto]'") from error
        for name, key in keys.items():
            if len(key) != 32:
                raise InvalidArgument(f"the key {name!r} must be 32 bytes")
        if current not in keys:
            raise InvalidArgument(f"the current key {current!r} is not among the keys")
        self._ciphers: dict[str, Any] = {name: AESGCM(bytes(key)) for name, key in keys.items()}
        self._invalid: type[Exception] = InvalidTag
        self.current = current
        if digest_key is None:
            digest_key = hmac.digest(bytes(next(iter(keys.values()))), b"everstep digest", hashlib.sha256)
        self.digest_key = digest_key

    def __repr__(self) -> str:
        return f"AesGcm(keys={list(self._ciphers)}, current={self.current!r})"

    def encrypt(self, data: bytes) -> tuple[str, bytes]:
        """Nonce and ciphertext under the current key; the key id is authenticated with it."""
        nonce = os.urandom(_NONCE)  # noqa: TID251
        sealed: bytes = self._ciphers[self.current].encrypt(nonce, data, self.current.encode())
        return self.current, nonce + sealed

    def decrypt(self, key_id: str, data: bytes) -> bytes:
        """Raises DecodeError: the key is unknown or wrong, or the data is damaged."""
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise DecodeError(f"no key {key_id!r} among {list(self._ciphers)}")
        try:
            opened: bytes = cipher.decrypt(data[:_NONCE], data[_NONCE:], key_id.encode())
        except (self._invalid, ValueError):
            raise DecodeError(f"the key {key_id!r} did not encrypt this, or the data is damaged") from None
        return opened
