"""One of several types: the one whose stored form the value is, and never a guess between two."""

# The older spellings of unions are part of what is tested.
# ruff: noqa: UP007, UP045

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import subprocess
import sys
import uuid
from typing import Any, Literal, Optional, Union

import pytest

from everstep.coerce import coerce, plain
from everstep.errors import DecodeError


@dataclasses.dataclass
class Card:
    number: str


@dataclasses.dataclass
class Account:
    number: str
    bank: str


@dataclasses.dataclass
class Cat:
    name: str
    kind: Literal["cat"] = "cat"


@dataclasses.dataclass
class Dog:
    name: str
    kind: Literal["dog"] = "dog"


@dataclasses.dataclass
class Voucher:
    number: str


class Color(enum.Enum):
    RED = "red"


DAY, ID = dt.date(2024, 1, 2), uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (1, int | str),
        ("1", int | str),
        (1, float | int),
        (1.0, int | float),
        (True, bool | int),
        (None, int | None),
        (Card("1"), Card | Account),
        (Account("1", "b"), Card | Account),
        (Account("1", "b"), Union[Card, Account, None]),
        (Dog("rex"), Cat | Dog),
        (Cat("tom"), Dog | Cat),
        (ID, uuid.UUID | str),
        ("hello", str | uuid.UUID),
        (DAY, str | dt.date),
        (dt.datetime(2024, 1, 2), dt.date | dt.datetime),
        (DAY, dt.date | dt.datetime),
        (Color.RED, Color | str),
        ("blue", Color | str),
        ("abcd", bytes | str),
        ("1.5", decimal.Decimal | str),
        (decimal.Decimal("1.50"), decimal.Decimal | None),
        (decimal.Decimal(1), int | decimal.Decimal),
        ([1, 2], list[int] | tuple[int, ...]),
        ([DAY], list[dt.date] | list[int]),
        ([DAY], list[str] | list[dt.date]),
        ({"a": Card("1")}, dict[str, Any] | dict[str, Card]),
        (["x"], list[decimal.Decimal] | list[str]),
        ([1], list[float] | list[int]),
        ([1.0], list[int] | list[float]),
        ([], list[int] | list[str]),
        ({"a": 1}, dict[str, Any] | Card),
        (Card("1"), dict[str, Any] | Card),
        ([Card("1"), "x", None], list[Card | str | None]),
        ({"k": Card("1")}, dict[str, Card | int]),
        ("off", Literal["off"] | int),
    ],
)
def test_the_member_that_was_stored_comes_back(value: Any, annotation: Any) -> None:
    back = coerce(plain(value), annotation)
    assert back == value
    assert repr(back) == repr(value)


def test_two_classes_of_the_same_fields_are_not_guessed_at() -> None:
    with pytest.raises(DecodeError, match=r"fits both .*Card and .*Voucher; a Literal field would tell them apart"):
        coerce(plain(Voucher("1")), Card | Voucher)
    with pytest.raises(DecodeError, match="fits both"):
        coerce([1], set[int] | tuple[int, ...])


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        ([], int | str, "expected int | str, got list"),
        (None, int | str, "expected int | str, got null"),
        ("x", int | dt.date | None, r"expected int \| datetime.date, got str"),
        ({"bank": 1}, Card | Account, "expected .*Card.*Account, got object"),
        ("x", Optional[int], "expected int, got str"),
    ],
)
def test_no_member_fits(value: Any, annotation: Any, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        coerce(value, annotation)


def test_an_older_record_takes_the_first_member_that_fits_at_all() -> None:
    assert coerce({"name": "tom"}, Dog | Cat) == Dog("tom")
    assert coerce("2024-01-01T00:00:00Z", dt.datetime | None) == dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def test_a_date_in_another_notation_stays_text_where_text_is_allowed() -> None:
    assert coerce("20240102", dt.date | str) == "20240102"


def test_the_order_of_members_counts_though_unions_compare_equal_without_it() -> None:
    one, other = Dog | Cat, Cat | Dog
    assert one == other
    assert type(coerce({"name": "x"}, one)) is Dog
    assert type(coerce({"name": "x"}, other)) is Cat


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type aliases are syntax from Python 3.12 on")
def test_a_recursive_type_alias() -> None:
    namespace: dict[str, Any] = {}
    exec("type Json = dict[str, Json] | list[Json] | str | int | None\ntype Many[T] = list[T]", namespace)
    value = {"a": [{"b": ["c", 1, None]}]}
    assert coerce(value, namespace["Json"]) == value
    with pytest.raises(DecodeError):
        coerce({"a": [1.5]}, namespace["Json"])
    assert coerce(["2024-01-02"], namespace["Many"][dt.date]) == [DAY]


def test_nothing_is_imported_for_types_that_nobody_uses() -> None:
    code = (
        "import sys, asyncio, everstep; before = set(sys.modules); import everstep.coerce as c;"
        "c.coerce({'a': [1]}, dict[str, list[int]]);"
        "print(sorted({'decimal', 'uuid', 'pathlib', 'pydantic', 'cryptography', 'sqlite3'}"
        " & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False, cwd="core")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
