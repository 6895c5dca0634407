"""What is encoded is decoded to the same, whatever it is; and what cannot be, is refused by name."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sqlite3
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from everstep.blobs import MemoryBlobs
from everstep.codec import Codec, Payload
from everstep.crypto import AesGcm
from everstep.errors import DecodeError, NotSerializable, PayloadTooLarge

any_text = st.text(st.characters(), max_size=10)  # lone surrogates and NUL included
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), any_text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(any_text, inner, max_size=4)),
)


class Swap:
    """The least that encrypts: two methods."""

    def encrypt(self, data: bytes) -> tuple[str, bytes]:
        return "k", data[::-1]

    def decrypt(self, key_id: str, data: bytes) -> bytes:
        return data[::-1]


def store_and_load(payload: Payload) -> Payload:
    """As the least forgiving store has it."""
    text = sqlite3.connect(":memory:").execute("select ?", (payload.data,)).fetchone()[0]
    return Payload(text, json.loads(json.dumps(dict(payload.headers))))


def exactly(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


@given(values)
@example("\ud800")
@example({"\udfff": ["\0", "a\0b"]})
@example(2**70)
@example(-0.0)
@example(1e308)
def test_what_is_encoded_is_decoded(value: Any) -> None:
    for codec in (Codec(), Codec(encryptor=Swap())):
        try:
            payload = codec.encode(value)
        except NotSerializable:
            assert re.search(r"\\ud[89ab]..\\ud[c-f]", ascii(value))  # the one thing that is refused, by the test below
            return
        assert exactly(codec.decode(store_and_load(payload)), value)


def test_two_surrogates_that_would_come_back_as_one_character_are_refused() -> None:
    with pytest.raises(NotSerializable, match="x: text with surrogates that form a pair"):
        Codec().encode("\ud83d" + "\ude00", "x")
    with pytest.raises(NotSerializable):
        Codec().encode({"\ud83d" + "\ude00": 1})


def test_plain_json_is_compact_readable_and_without_headers() -> None:
    assert Codec().encode({"a": [1, None, True, "ü"]}) == Payload('{"a":[1,null,true,"ü"]}', {})
    assert Codec().encode(None) == Payload("null")
    assert Codec().encode("a\n") == Payload('"a\\n"')


def test_nothing_decodes_to_none() -> None:
    assert Codec().decode(Payload(None)) is None


def test_a_copy_is_shared_with_nobody() -> None:
    @dataclasses.dataclass
    class Basket:
        items: list[int]

    value = [Basket([1]), {"a": {}}]
    copy = Codec().copy(value)
    assert copy == [{"items": [1]}, {"a": {}}]
    assert copy[1]["a"] is not value[1]["a"]  # type: ignore[index]
    with pytest.raises(NotSerializable, match="y: object"):
        Codec().copy(object(), "y")


@pytest.mark.parametrize("text", [" ", "{", "nul", "[1,]", '"a', "1 2", "NaN", "[Infinity]", "\x00", "[" * 100_000])
def test_damaged_text_is_a_decode_error(text: str) -> None:
    with pytest.raises(DecodeError, match=r"the stored text is (not JSON|nested too deeply)"):
        Codec().decode(Payload(text))


def test_no_text_at_all_is_none_as_a_client_in_typescript_writes_undefined() -> None:
    assert Codec().decode(Payload("")) is None


def test_foreign_json_with_space_around_it_is_read() -> None:
    assert Codec().decode(Payload(' {"a": 1}\n')) == {"a": 1}


def test_the_refusal_names_what_was_passed() -> None:
    with pytest.raises(NotSerializable, match=r"argument 'card' of charge\(\): \.pin: object cannot be stored"):
        Codec().encode({"pin": object()}, "argument 'card' of charge()")


def test_an_integer_of_too_many_digits_is_refused_and_not_a_value_error_of_the_encoder() -> None:
    with pytest.raises(NotSerializable, match="x: "):
        Codec().encode(10**5000, "x")
    with pytest.raises(NotSerializable, match="x: "):
        Codec().encode({10**5000: 1}, "x")
    with pytest.raises(DecodeError):
        Codec().decode(Payload("1" * 5000))


def test_the_limit_counts_stored_bytes() -> None:
    codec = Codec(limit=10)
    assert codec.encode("12345678").data == '"12345678"'
    assert codec.encode("äöüÄ").data == '"äöüÄ"'
    for value in ("123456789", "äöüÄÖ"):
        with pytest.raises(PayloadTooLarge, match=r"result of f\(\) has 1[12] bytes, and at most 10 can be stored"):
            codec.encode(value, "result of f()")
    with pytest.raises(PayloadTooLarge):
        Codec(limit=10, encryptor=Swap()).encode("12345678")


def test_a_payload_above_the_limit_goes_to_the_blobs_and_comes_back() -> None:
    async def main() -> None:
        blobs = MemoryBlobs()
        for codec in (Codec(blobs=blobs, limit=10), Codec(blobs=blobs, limit=10, encryptor=Swap())):
            value = "ä" * 100
            whole = codec.encode(value, "x")
            reference = await codec.externalize(whole, "root.1", "value")
            assert reference.data is None
            assert await codec.internalize(reference) == whole
            assert codec.decode(await codec.internalize(reference)) == value
            assert await codec.externalize(reference, "root.1", "value") == reference
            with pytest.raises(DecodeError, match="was not fetched"):
                codec.decode(reference)
            for other in ("roo", "root.1/val", "root.1/value", "other"):
                await codec.discard(reference, other)
            assert blobs.held != {}, "it is of another tree"
            await codec.discard(reference, "root")
            assert blobs.held == {}
            with pytest.raises(DecodeError, match="is gone"):
                await codec.internalize(reference)

    asyncio.run(main())


def test_a_payload_below_the_limit_is_left_alone() -> None:
    async def main() -> None:
        codec = Codec(blobs=MemoryBlobs(), limit=10)
        for payload in (codec.encode(1), Payload('"12345678"'), Payload(None)):
            assert await codec.externalize(payload, "a", "value") is payload
            assert await codec.internalize(payload) is payload
            await codec.discard(payload, "a")

    asyncio.run(main())


def test_f2_a_late_writer_of_the_same_id_changes_nothing_that_was_recorded() -> None:
    async def main() -> None:
        codec = Codec(blobs=MemoryBlobs(), limit=10)
        first = await codec.externalize(codec.encode("a" * 50), "root.1", "value")
        late = await codec.externalize(codec.encode("b" * 50), "root.1", "value")
        assert codec.decode(await codec.internalize(first)) == "a" * 50
        assert codec.decode(await codec.internalize(late)) == "b" * 50

    asyncio.run(main())


def test_a_damaged_blob_is_noticed() -> None:
    async def main() -> None:
        blobs = MemoryBlobs()
        codec = Codec(blobs=blobs, limit=10)
        reference = await codec.externalize(codec.encode("a" * 50), "root.1", "value")
        [place] = blobs.held
        blobs.held[place] = blobs.held[place].replace(b"a", b"b", 1)
        with pytest.raises(DecodeError, match="is damaged"):
            await codec.internalize(reference)

    asyncio.run(main())


def test_trouble_of_the_blobs_is_not_taken_for_a_lost_value() -> None:
    class Down(MemoryBlobs):
        async def get(self, key: str) -> bytes:
            raise ConnectionError

    async def main() -> None:
        codec = Codec(blobs=Down(), limit=10)
        reference = await codec.externalize(codec.encode("a" * 50), "root.1", "value")
        with pytest.raises(ConnectionError):
            await codec.internalize(reference)

    asyncio.run(main())


def test_without_blobs_a_large_payload_is_refused_everywhere() -> None:
    async def main() -> None:
        with pytest.raises(PayloadTooLarge, match=r"value of root\.1 has 12 bytes, and at most 10"):
            await Codec(limit=10).externalize(Payload('"äöüÄÖ"'), "root.1", "value")
        with pytest.raises(PayloadTooLarge, match=r"value of root\.1 has 52 bytes, and at most 10"):
            await Codec(limit=10).externalize(Payload('"' + "a" * 50 + '"'), "root.1", "value")
        with pytest.raises(DecodeError, match="no blobs are configured"):
            await Codec().internalize(Payload(None, {"everstep:ref": "x"}))

    asyncio.run(main())


def test_even_blobs_have_a_limit() -> None:
    with pytest.raises(PayloadTooLarge, match="at most 100 can"):
        Codec(blobs=MemoryBlobs(), limit=10, hard_limit=100).encode("a" * 100)


@dataclasses.dataclass
class Card:
    number: str


class TestDigest:
    """Rule I6: a keyed digest of the plaintext, equal for equal work."""

    def test_equal_work(self) -> None:
        one = Codec().digest("charge", ["o", 1], {"a": 1, "b": {"x": 1, "y": 2}})
        assert one == Codec().digest("charge", ("o", 1), {"b": {"y": 2, "x": 1}, "a": 1})
        assert len(one) == 22
        assert Codec().digest("f", [Card("1")], {}) == Codec().digest("f", [{"number": "1"}], {})

    @pytest.mark.parametrize(
        "other",
        [
            ("charge2", ["o", 1], {"a": 1}),
            ("charge", ["o", 2], {"a": 1}),
            ("charge", ["o", "1"], {"a": 1}),
            ("charge", ["o", 1.0], {"a": 1}),
            ("charge", ["o", True], {"a": 1}),
            ("charge", ["o", 1, {"a": 1}], {}),
            ("charge", ["o"], {"a": 1}),
        ],
    )
    def test_different_work(self, other: Any) -> None:
        assert Codec().digest(*other) != Codec().digest("charge", ["o", 1], {"a": 1})

    def test_the_ciphertext_does_not_count_and_the_key_does(self) -> None:
        pytest.importorskip("cryptography")
        one = Codec(encryptor=AesGcm({"k1": b"1" * 32}, "k1"))
        rotated = Codec(encryptor=AesGcm({"k1": b"1" * 32, "k2": b"2" * 32}, "k2"))
        other = Codec(encryptor=AesGcm({"k2": b"2" * 32}, "k2"))
        assert one.encode("x") != one.encode("x")
        assert one.digest("f", ["x"], {}) == one.digest("f", ["x"], {}) == rotated.digest("f", ["x"], {})
        assert one.digest("f", ["x"], {}) != other.digest("f", ["x"], {})
        assert one.digest("f", ["x"], {}) != Codec().digest("f", ["x"], {})

    def test_lone_surrogates(self) -> None:
        assert Codec().digest("f", ["\ud800"], {}) != Codec().digest("f", ["\ud801"], {})

    @given(values)
    def test_any_value(self, value: Any) -> None:
        assert Codec().digest("f", [value], {}) == Codec().digest("f", [value], {})
