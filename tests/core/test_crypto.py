"""Encryption: what is stored tells nothing, old keys still read, and a wrong key is an error of the reader."""

from __future__ import annotations

import base64
import sys
from typing import Any

import pytest

from everstep.codec import Codec, Payload
from everstep.crypto import AesGcm, Encryptor
from everstep.errors import DecodeError, InvalidArgument
from everstep.failures import describe, rebuild
from tests.components import requires_component

requires_component("cryptography", hint="pip install -e '.[crypto]'")

K1, K2 = b"1" * 32, b"2" * 32


def codec(current: str = "k1", **keys: bytes) -> Codec:
    encryptor: Encryptor = AesGcm(keys or {"k1": K1}, current)
    return Codec(encryptor=encryptor)


class Declined(Exception):
    def __init__(self, number: str) -> None:
        super().__init__(f"card {number} declined")
        self.number = number


@pytest.mark.parametrize("value", ["4111-1111", {"name": "Ada Lovelace"}, None, 1, [], "\ud800", "a" * 10_000])
def test_what_is_stored_tells_nothing_and_comes_back(value: Any) -> None:
    payload = codec().encode(value)
    assert payload.headers == {"everstep:key": "k1"}
    assert payload.data is not None
    raw = base64.b64decode(payload.data)
    assert b"4111" not in raw
    assert b"Ada" not in raw
    assert codec().decode(payload) == value


def test_errors_are_encrypted_like_everything_else() -> None:
    payload = codec().encode(describe(Declined("4111-1111")))
    assert "4111" not in str(payload)
    error = rebuild(codec().decode(payload))
    assert isinstance(error, Declined)
    assert error.number == "4111-1111"


def test_equal_values_have_different_ciphertexts() -> None:
    assert codec().encode("x").data != codec().encode("x").data


def test_after_a_rotation_old_values_still_read() -> None:
    old = codec().encode("x")
    rotated = codec("k2", k1=K1, k2=K2)
    assert rotated.encode("y").headers == {"everstep:key": "k2"}
    assert rotated.decode(old) == "x"


def test_an_unknown_key_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="cannot be decrypted under the key 'k1'"):
        codec("k2", k2=K2).decode(codec().encode("x"))


def test_a_wrong_key_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="cannot be decrypted under the key 'k1'"):
        codec(k1=K2).decode(codec().encode("x"))


def test_without_an_encryptor_it_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="no encryptor is configured"):
        Codec().decode(codec().encode("x"))


def test_a_changed_ciphertext_or_key_id_is_a_decode_error() -> None:
    payload = codec().encode("x")
    assert payload.data is not None
    raw = bytearray(base64.b64decode(payload.data))
    for place in (0, 12, len(raw) - 1):
        changed = raw.copy()
        changed[place] ^= 1
        with pytest.raises(DecodeError):
            codec().decode(Payload(base64.b64encode(changed).decode(), payload.headers))
    with pytest.raises(DecodeError):
        codec(k1=K1, k2=K1).decode(Payload(payload.data, {"everstep:key": "k2"}))
    for text in ("", "?", "AAAA", None):
        with pytest.raises(DecodeError):
            codec().decode(Payload(text, payload.headers))


def test_values_stored_before_encryption_was_turned_on_still_read() -> None:
    assert codec().decode(Codec().encode("x")) == "x"


def test_an_encryptor_needs_two_methods_and_may_raise_anything() -> None:
    class Broken:
        def encrypt(self, data: bytes) -> tuple[str, bytes]:
            return "k", data

        def decrypt(self, key_id: str, data: bytes) -> bytes:
            raise ConnectionError("the key service is down")

    broken = Codec(encryptor=Broken())
    with pytest.raises(DecodeError, match="ConnectionError") as caught:
        broken.decode(broken.encode("x"))
    assert isinstance(caught.value.__cause__, ConnectionError)


@pytest.mark.parametrize(
    ("keys", "current", "message"),
    [
        ({"k": b"short"}, "k", "'k' must be 32 bytes"),
        ({"k": K1}, "j", "'j' is not among"),
        ({}, "k", "'k' is not among"),
    ],
)
def test_unusable_keys_are_refused_at_once(keys: dict[str, bytes], current: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        AesGcm(keys, current)


def test_the_repr_holds_no_key() -> None:
    assert "1111" not in repr(AesGcm({"k1": K1}, "k1"))


def test_the_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ImportError, match=r"pip install 'everstep\[crypto\]'"):
        AesGcm({"k": K1}, "k")
