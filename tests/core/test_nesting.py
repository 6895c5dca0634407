"""The depth of JSON from outside is known before its parser begins, whatever the text holds."""

from __future__ import annotations

import json
import json.decoder
import json.scanner
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstep.codec import Codec
from everstep.errors import DecodeError, InvalidArgument
from everstep.http.strict import loads as strict
from everstep.nesting import DEEPEST, NestedTooDeeply, check_nesting, loads
from everstep.plain import MAX_DEPTH
from everstep.promise import Payload
from everstep.wakers.message import wake_from_json


class Measured(json.JSONDecoder):
    """The standard library's parser in Python, which tells how deep it went."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = self.deepest = 0
        self.parse_array: Any = self._counted(json.decoder.JSONArray)  # type: ignore[attr-defined]
        self.parse_object: Any = self._counted(json.decoder.JSONObject)  # type: ignore[attr-defined]
        self.scan_once: Any = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]

    def _counted(self, parse: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.depth += 1
            self.deepest = max(self.deepest, self.depth)
            try:
                return parse(*arguments)
            finally:
                self.depth -= 1

        return counted


@contextmanager
def room() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 20 * DEEPEST)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def depth(text: str) -> int:
    """How deep a parser goes in a text, to its end or to where it finds no JSON."""
    parser = Measured()
    with room():
        try:
            parser.decode(text)
        except ValueError:
            pass
    return parser.deepest


def refused(text: str | bytes) -> bool:
    try:
        check_nesting(text)
    except NestedTooDeeply:
        return True
    return False


TEXTS = st.text(st.sampled_from('[]{}"\\a/é\n \ud800'), max_size=8)
SIBLINGS = st.recursive(TEXTS | st.integers() | st.none(), lambda one: st.lists(one, max_size=3), max_leaves=6)


@st.composite
def towers(draw: st.DrawFn) -> Any:
    """Values around the limit, whose texts hold brackets, quotes and backslashes."""
    value: Any = draw(SIBLINGS)
    repeated = draw(st.lists(st.tuples(st.booleans(), TEXTS, SIBLINGS, SIBLINGS), min_size=1, max_size=4))
    for level in range(draw(st.integers(DEEPEST - 5, DEEPEST + 3) | st.integers(0, 20))):
        as_object, key, before, after = repeated[level % len(repeated)]
        value = {f"<{key}": before, key: value, f">{key}": after} if as_object else [before, value, after]
    return value


@given(towers(), st.booleans(), st.sampled_from([None, 1]))
def test_json_is_refused_where_it_is_deeper_and_nowhere_else(value: Any, ascii: bool, indent: int | None) -> None:
    with room():
        text = json.dumps(value, ensure_ascii=ascii, indent=indent)
    assert refused(text) is (depth(text) > DEEPEST)
    data = text.encode(errors="surrogatepass")
    assert refused(data) is refused(text)
    if refused(text):
        with pytest.raises(NestedTooDeeply):
            loads(data)
    else:
        assert loads(data) == loads(text) == value


PIECES = st.sampled_from(
    ["[", "]", "{", "}", '"', "\\", ",", ":", "1", '"a":', '"]"', '"["', '\\"', "\\\\", "[[", '{"a":']
)


@given(st.lists(st.tuples(st.lists(PIECES, max_size=6), st.integers(1, 300)), max_size=4))
def test_what_passes_is_never_parsed_deeper_whatever_it_is(parts: list[tuple[list[str], int]]) -> None:
    text = "".join("".join(pieces) * times for pieces, times in parts)
    if not refused(text):
        assert depth(text) <= DEEPEST


@pytest.mark.parametrize("one", ["[", '{"a":', '[{"a":', '["]",', "[[],", '[{},[[]],"\\"[",', " [\t", '[1,"\\\\",'])
@pytest.mark.parametrize("times", [DEEPEST + 1, 100_000])
def test_what_is_far_too_deep_is_refused_before_any_parser_sees_it(one: str, times: int) -> None:
    for text in (one * times, one * times + "1" + "]" * times):
        assert refused(text)
        assert refused(text.encode())
        with pytest.raises(NestedTooDeeply, match=f"nested too deeply: more than {DEEPEST} levels"):
            loads(text)
        with pytest.raises(NestedTooDeeply):
            loads(text.encode("utf-16"))


@pytest.mark.parametrize(
    "text", ["[" * DEEPEST + "]" * DEEPEST, "[" + "[{}]," * 10_000 + "1]", '["' + "[" * 10_000 + '"]']
)
def test_what_is_long_or_at_the_limit_passes(text: str) -> None:
    assert loads(text) == loads(text.encode()) == json.loads(text)


DEEP = '{"a":' * 100_000


def test_every_way_in_says_so_in_its_own_error() -> None:
    with pytest.raises(DecodeError, match="nested too deeply"):
        Codec().decode(Payload(DEEP, {}))
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        wake_from_json(DEEP)
    with pytest.raises(ValueError, match="is nested too deeply"):
        strict(DEEP.encode())


def test_whatever_may_be_stored_may_be_read() -> None:
    value: Any = 0
    for _ in range(MAX_DEPTH):
        value = {"k" * 9: value}
    assert Codec().decode(Codec().encode(value, "value")) == value
