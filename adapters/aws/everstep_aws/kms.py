"""Encryption under data keys that KMS has wrapped: envelope encryption, with the envelope in the configuration.

A data key is made once, by `new_data_key`, and travels wrapped, in an environment variable or a parameter. A sandbox
asks KMS once for each key that it meets, and no record carries more than a key's name. Whoever may not call
`kms:Decrypt` on that key reads nothing.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from everstep.crypto import AesGcm
from everstep.errors import DecodeError, InvalidArgument, StoreUnavailable

from .calls import make_client, passes

_CONTEXT = {"everstep": "data-key"}


class KmsEncryptor:
    """AES-256-GCM (rule: see `everstep.crypto.AesGcm`) under keys that KMS unwraps.

    To rotate: add a wrapped key, make it `current`, and keep the old ones while values under them are kept.

    Args:
        wrapped: base64 of wrapped keys of 32 bytes, by a name of your choice; the first one keys the digests (I6).
        current: the name to encrypt with.
        client: of KMS; by default of the environment.

    Raises:
        InvalidArgument: `current` is none of them, or one is not base64.
    """

    def __init__(self, wrapped: Mapping[str, str], current: str, *, client: Any = None) -> None:
        if current not in wrapped:
            raise InvalidArgument(f"the current key {current!r} is not among the keys")
        try:
            self._wrapped = {name: b64decode(text, validate=True) for name, text in wrapped.items()}
        except ValueError as error:
            raise InvalidArgument(f"a wrapped key is not base64: {error}") from None
        self.current = current
        self._client = client
        self._keys: dict[str, bytes] = {}
        self._ciphers: dict[str, AesGcm] = {}

    def __repr__(self) -> str:
        return f"KmsEncryptor(keys={list(self._wrapped)}, current={self.current!r})"

    @property
    def digest_key(self) -> bytes:
        """Keys the digests of arguments."""
        first = next(iter(self._wrapped))
        return AesGcm({first: self._key(first)}, first).digest_key

    def encrypt(self, data: bytes) -> tuple[str, bytes]:
        """Under the current key. Raises StoreUnavailable and DecodeError as `decrypt`."""
        return self._cipher(self.current).encrypt(data)

    def decrypt(self, key_id: str, data: bytes) -> bytes:
        """Raises DecodeError: the key is unknown or wrong, KMS refuses it, or the data is damaged; StoreUnavailable:
        KMS is in trouble that passes."""
        if key_id not in self._wrapped:
            raise DecodeError(f"no key {key_id!r} among {list(self._wrapped)}")
        return self._cipher(key_id).decrypt(key_id, data)

    def _cipher(self, name: str) -> AesGcm:
        cipher = self._ciphers.get(name)
        if cipher is None:
            cipher = self._ciphers[name] = AesGcm({name: self._key(name)}, name)
        return cipher

    def _key(self, name: str) -> bytes:
        key = self._keys.get(name)
        if key is None:
            from botocore.exceptions import BotoCoreError, ClientError

            if self._client is None:
                self._client = make_client("kms", attempts=3)
            try:
                answer = self._client.decrypt(CiphertextBlob=self._wrapped[name], EncryptionContext=_CONTEXT)
            except (BotoCoreError, ClientError) as error:
                if passes(error):
                    raise StoreUnavailable(f"KMS does not unwrap the key {name!r} now: {error}") from error
                raise DecodeError(f"KMS does not unwrap the key {name!r}: {error}") from error
            key = self._keys[name] = answer["Plaintext"]
        return key


def new_data_key(key_id: str, *, client: Any = None) -> str:
    """A new data key, wrapped under a KMS key, in base64: what `KmsEncryptor` takes.

    Args:
        key_id: id, ARN or alias of a symmetric KMS key.

    Raises:
        botocore.exceptions.ClientError: KMS refuses.
    """
    kms = client if client is not None else make_client("kms")
    answer = kms.generate_data_key_without_plaintext(KeyId=key_id, KeySpec="AES_256", EncryptionContext=_CONTEXT)
    return b64encode(answer["CiphertextBlob"]).decode("ascii")
