"""A value of a type, stored and restored by that type, is the same value of the same types."""

# The older spellings of types are part of what is tested.
# ruff: noqa: UP006, UP045, F821

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import pathlib
import re
import sys
import typing
import uuid
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstep.coerce import coerce, coercer, plain
from everstep.errors import DecodeError, NotSerializable

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Right(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Pair(enum.Enum):
    ONE = (1, 2)
    TWO = (3, 4)


class Kind(enum.StrEnum):
    CARD = "card"
    CASH = "cash"


@dataclasses.dataclass(frozen=True, slots=True)
class Money:
    amount: decimal.Decimal
    currency: str = "EUR"


@dataclasses.dataclass
class Line:
    sku: uuid.UUID
    price: Money
    tags: frozenset[str] = frozenset()
    gift: bool = False


@dataclasses.dataclass
class Order:
    lines: list[Line]
    placed: dt.datetime
    color: Color | None = None
    notes: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    total: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.total = len(self.lines)


@dataclasses.dataclass
class Tree:
    value: int
    left: Tree | None = None
    children: list[Tree] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Box(Generic[T]):
    inside: T
    spare: list[T]


@dataclasses.dataclass
class Alive:
    name: str
    secret: dataclasses.InitVar[str]


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Movie(TypedDict):
    title: str
    year: NotRequired[int]
    when: dt.date


class Partial(TypedDict, total=False):
    title: Required[str]
    seen: dt.date


DAY = dt.date(2024, 1, 2)
Cents = NewType("Cents", int)


def same(one: Any, other: Any) -> bool:
    """Equal, and of equal types all the way down."""
    if type(one) is not type(other):
        return False
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    if isinstance(one, (list, tuple, collections.deque)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(item, other[key]) for key, item in one.items())
    return bool(one == other)


def through_text(value: Any) -> Any:
    return json.loads(json.dumps(plain(value), allow_nan=False))


text = st.text(st.characters(codec="utf-8"), max_size=8)
offsets = st.integers(-86_399, 86_399).map(lambda seconds: dt.timezone(dt.timedelta(seconds=seconds)))
zones = st.one_of(st.none(), offsets)
leaves: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    str: text,
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
    dt.datetime: st.datetimes(timezones=zones),
    dt.date: st.dates(),
    dt.time: st.times(),
    dt.timedelta: st.timedeltas(),
    decimal.Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    uuid.UUID: st.uuids(),
    bytes: st.binary(max_size=16),
    bytearray: st.binary(max_size=16).map(bytearray),
    Color: st.sampled_from(Color),
    Level: st.sampled_from(Level),
    Kind: st.sampled_from(Kind),
    Pair: st.sampled_from(Pair),
    Right: st.integers(0, 7).map(Right),
    pathlib.PurePosixPath: text.map(lambda name: pathlib.PurePosixPath(name.replace("\0", ""))),
    Literal["a", 3, None]: st.sampled_from(["a", 3, None]),
    Cents: st.integers(),
    Annotated[int, "cents"]: st.integers(),
    Point: st.builds(Point, st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    Money: st.builds(Money, st.decimals(allow_nan=False, allow_infinity=False), text),
}
hashable = [int, str, dt.date, uuid.UUID, Color, Level, decimal.Decimal, bytes]


def containers(inner: tuple[Any, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    kind, values = inner
    return st.one_of(
        st.just((list[kind], st.lists(values, max_size=3))),
        st.just((tuple[kind, ...], st.lists(values, max_size=3).map(tuple))),
        st.just((tuple[int, kind], st.tuples(st.integers(), values))),
        st.just((collections.deque[kind], st.lists(values, max_size=3).map(collections.deque))),
        st.just((Optional[kind], st.one_of(st.none(), values))),
        st.just((Box[kind], st.builds(Box, values, st.lists(values, max_size=2)))),
        st.sampled_from(hashable).map(lambda key: (dict[key, kind], st.dictionaries(leaves[key], values, max_size=3))),
    )


sets = st.sampled_from(hashable).map(lambda kind: (set[kind], st.sets(leaves[kind], max_size=4)))
typed = st.recursive(st.one_of(st.sampled_from(list(leaves.items())), sets), lambda inner: inner.flatmap(containers))


@given(typed.flatmap(lambda pair: st.tuples(st.just(pair[0]), pair[1])))
def test_what_is_stored_comes_back_as_the_same_value_of_the_same_types(case: tuple[Any, Any]) -> None:
    annotation, value = case
    assert same(coerce(through_text(value), annotation), value)


lines = st.builds(Line, st.uuids(), leaves[Money], st.frozensets(text, max_size=3), st.booleans())
orders = st.builds(
    Order,
    st.lists(lines, max_size=3),
    st.datetimes(timezones=zones),
    st.one_of(st.none(), st.sampled_from(Color)),
    st.dictionaries(text, st.lists(st.integers(), max_size=2).map(tuple), max_size=2),
)


@given(orders)
def test_a_dataclass_of_dataclasses_comes_back(order: Order) -> None:
    order.total = 99  # what was computed is kept as it was, not computed again
    assert same(coerce(through_text(order), Order), order)


@given(
    st.recursive(st.builds(Tree, st.integers()), lambda t: st.builds(Tree, st.integers(), t, st.lists(t, max_size=2)))
)
def test_a_class_may_mention_itself(tree: Tree) -> None:
    assert same(coerce(through_text(tree), Tree), tree)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), leaves[float], text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
)


@given(json_values)
def test_what_is_plain_already_is_not_copied(value: Any) -> None:
    assert plain(value) is value
    assert coerce(value, Any) is value


def test_an_aware_datetime_keeps_its_instant_and_offset() -> None:
    when = dt.datetime(2024, 2, 29, 12, 0, 0, 1, dt.timezone(dt.timedelta(hours=5, minutes=30)))
    back = coerce(plain(when), dt.datetime)
    assert back == when
    assert back.utcoffset() == when.utcoffset()


@pytest.mark.parametrize("text", ["0.10", "1E+3", "-0", "123456789012345678901234567890.123456789"])
def test_a_decimal_keeps_its_digits(text: str) -> None:
    assert str(coerce(plain(decimal.Decimal(text)), decimal.Decimal)) == str(decimal.Decimal(text))


@pytest.mark.parametrize(
    ("length", "stored"),
    [
        (dt.timedelta(), "PT0S"),
        (dt.timedelta(days=3), "P3D"),
        (dt.timedelta(seconds=90, microseconds=500_000), "PT90.5S"),
        (dt.timedelta(days=-1, seconds=1), "-PT86399S"),
        (dt.timedelta.max, "P999999999DT86399.999999S"),
        (dt.timedelta.min, "-P999999999D"),
    ],
)
def test_a_duration_is_exact(length: dt.timedelta, stored: str) -> None:
    assert plain(length) == stored
    assert coerce(stored, dt.timedelta) == length


def test_a_duration_written_by_hand() -> None:
    assert coerce("PT1H30M", dt.timedelta) == dt.timedelta(minutes=90)
    assert coerce(1.5, dt.timedelta) == dt.timedelta(seconds=1.5)


@pytest.mark.parametrize("text", ["P", "PT", "1D", "P1.5D", "PT1S ", "PT1.1234567S", "P1DT", "PT\u0663S", ""])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(DecodeError, match="not an ISO 8601 duration"):
        coerce(text, dt.timedelta)


def test_a_big_integer_is_exact() -> None:
    assert coerce(through_text(2**200), int) == 2**200
    assert coerce(2**53 + 1, float) == 2**53 + 1  # not rounded, as a float would be


def test_sets_are_stored_in_one_order() -> None:
    assert plain({"b", "a", "c"}) == ["a", "b", "c"]
    assert plain({3, 20, 100}) == [3, 20, 100]
    assert plain(frozenset({1, "a", None})) == plain(frozenset({None, "a", 1}))
    assert plain({Money(decimal.Decimal(2)), Money(decimal.Decimal(1))})[0]["amount"] == "1"


def test_keys_that_are_not_strings() -> None:
    day = dt.date(2024, 1, 2)
    stored = plain({day: {Level.HIGH: Color.RED}, "x": {}})
    assert stored == {"2024-01-02": {"2": "red"}, "x": {}}
    assert coerce({"2024-01-02": {"2": "red"}}, dict[dt.date, dict[Level, Color]]) == {day: {Level.HIGH: Color.RED}}
    assert coerce({"-7": "a"}, dict[int, str]) == {-7: "a"}


@pytest.mark.parametrize("text", ["07", "+7", "7 ", "\u0667", "", "-", "1_0", "9" * 5000])
def test_a_key_that_is_not_the_text_of_an_integer(text: str) -> None:
    with pytest.raises(DecodeError):
        coerce({text: 1}, dict[int, int])


@pytest.mark.parametrize("key", [None, True, 1.5, (1, 2), Pair.ONE, object()])
def test_a_key_without_a_text_is_refused(key: Any) -> None:
    with pytest.raises(NotSerializable, match="a key of type"):
        plain({"a": {key: 1}})


def test_two_keys_of_one_text_are_refused() -> None:
    with pytest.raises(NotSerializable, match="two keys would both be stored as '1'"):
        plain({1: "a", "1": "b"})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), r"x: object cannot be stored"),
        ({"items": [1, {"lock": re.compile("a")}]}, r"x: \.items\[1\]\.lock: re\.Pattern cannot be stored"),
        ({"a b": {1, object}}, r"x: \['a b'\]\{…\}: type cannot be stored"),
        (Box(1, [object()]), r"x: \.spare\[0\]: object cannot be stored"),
        (float("nan"), "x: a float that is NaN or infinite"),
        ([float("-inf")], r"x: \[0\]: a float that is NaN or infinite"),
        (decimal.Decimal("sNaN"), "x: a Decimal that is NaN or infinite"),
        (lambda: 0, "x: function cannot be stored"),
        (ValueError(), "x: ValueError cannot be stored"),
        (dt.time(tzinfo=dt.timezone(dt.timedelta(microseconds=1))), "a UTC offset with a fraction of a second"),
        (3j, "x: complex cannot be stored"),
        (Alive("a", "b"), "InitVar 'secret' has no default"),
        (range(3), "x: range cannot be stored"),
        (iter([1]), "cannot be stored"),
    ],
)
def test_what_cannot_be_stored_is_named(value: Any, message: str) -> None:
    with pytest.raises(NotSerializable, match=message):
        plain(value, "x")


def test_a_circle_is_refused_as_one() -> None:
    ring: list[Any] = []
    ring.append({"again": ring})
    with pytest.raises(NotSerializable, match="circular"):
        plain(ring)
    tree = Tree(1)
    tree.left = tree
    with pytest.raises(NotSerializable, match="circular"):
        plain(tree)


@pytest.mark.parametrize("depth", [101, 5_000, 200_000])
def test_deep_nesting_is_refused_and_not_a_recursion_error(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    with pytest.raises(NotSerializable, match="nested deeper than 100 levels"):
        plain(value)
    while isinstance(value, list):  # taken apart by hand: freeing it all at once is recursive too
        value = value.pop()


def test_a_stack_that_is_nearly_used_up_is_no_recursion_error_either() -> None:
    value: Any = 1
    for _ in range(100):
        value = [value]

    said = False

    def descend(left: int) -> None:
        nonlocal said
        if left:
            return descend(left - 1)
        try:
            plain(value)
        except NotSerializable as error:
            said = "nested too deeply for the stack" in str(error)

    for left in range(sys.getrecursionlimit() - 300, sys.getrecursionlimit()):
        try:
            descend(left)
        except RecursionError:
            break
        if said:
            break
    assert said


def test_a_hundred_levels_can_be_stored() -> None:
    value: Any = 1
    for _ in range(100):
        value = {"a": value}
    assert plain(value) is value


def test_a_shared_part_is_no_circle() -> None:
    part = {"a": 1}
    assert plain([part, (part,)]) == [part, [part]]


def test_a_part_is_looked_at_once_however_deep_it_is() -> None:
    looks = 0

    @dataclasses.dataclass
    class Watched:
        x: int = 1

        def __getattribute__(self, name: str) -> Any:
            nonlocal looks
            looks += name == "x"
            return object.__getattribute__(self, name)

    value: Any = Watched()
    for _ in range(15):
        value = {"a": [value, DAY], DAY: 1}
    plain(value)
    assert looks == 1


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        ("1", int, "expected int, got str"),
        (1, str, "expected str, got int"),
        (1.0, int, "expected int, got float"),
        (1, bool, "expected bool, got int"),
        ("1.0", float, "expected float, got str"),
        (None, int, "expected int, got null"),
        (1, None, "expected null, got int"),
        ({}, list[int], "expected a list, got object"),
        ([], dict[str, int], "expected an object, got list"),
        ([1, "2"], list[int], r"\[1\]: expected int, got str"),
        ({"a": {"b": "2"}}, dict[str, dict[str, int]], r"\.a\.b: expected int, got str"),
        ([1], tuple[int, int], "expected a list of 2, got one of 1"),
        ([1, 2], tuple[()], "expected a list of 0, got one of 2"),
        ([[]], set[list[int]], "cannot be in a set"),
        ("purple", Color, r"str is no value of .*Color"),
        (3, Level, r"int is no value of .*Level"),
        (True, Level, r"bool is no value"),
        (8, Right, r"int is no value of .*Right"),
        (True, Literal[1], "none of the 1 allowed values"),
        ("b", Literal["a", "c"], "none of the 2 allowed values"),
        ("x", uuid.UUID, "not a UUID"),
        ("2024-13-01", dt.date, "not an ISO 8601 date"),
        ("noon", dt.time, "not an ISO 8601 time"),
        (5, dt.datetime, "expected datetime.datetime as a string, got int"),
        ("1,5", decimal.Decimal, "not a decimal number"),
        ("NaN", decimal.Decimal, "not a finite decimal number"),
        ("?", bytes, "not base64"),
        ({"amount": "1"}, Line, "the field 'sku' of .*Line is missing"),
        ({"amount": 1, "currency": 2}, Money, r"\.currency: expected str, got int"),
        (["1"], Point, r"\[0\]: expected int, got str"),
        ([1, 2.0, 3], Point, "expected a list of 2 for .*Point, got one of 3"),
        ({"title": "x"}, Movie, "the key 'when' of .*Movie is missing"),
        ({"title": "x", "when": 1}, Movie, r"\.when: expected datetime.date as a string"),
        ({"seen": "2024-01-01"}, Partial, "the key 'title' of .*Partial is missing"),
        (1, re.Pattern, "re.Pattern cannot be built from a stored value"),
        (1, "Nowhere", "'Nowhere' names nothing that exists at run time"),
        (["x"], list["Nowhere"], r"\[0\]: the annotation 'Nowhere' names nothing"),
    ],
)
def test_what_does_not_fit_is_said_with_its_path(value: Any, annotation: Any, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        coerce(value, annotation)


def test_messages_hold_no_values() -> None:
    for value, annotation in [("4111-1111", int), ({"number": "4111-1111"}, dict[str, int]), ("4111-1111", Color)]:
        with pytest.raises(DecodeError) as caught:
            coerce(value, annotation)
        assert "4111" not in str(caught.value)


def test_what_type_checkers_let_pass_passes() -> None:
    assert same(coerce(1, float), 1.0)
    assert coerce(True, int) is True
    assert same(coerce("2024-01-01T10:00:00", dt.date), dt.datetime(2024, 1, 1, 10))


def test_typed_dicts() -> None:
    assert coerce({"title": "x", "when": "2024-01-02"}, Movie) == {"title": "x", "when": dt.date(2024, 1, 2)}
    assert coerce({"title": "x"}, Partial) == {"title": "x"}


def test_an_older_record_of_a_class_still_loads() -> None:
    assert coerce({"amount": "1"}, Money) == Money(decimal.Decimal(1), "EUR")
    assert coerce({"amount": "1", "removed": True}, Money) == Money(decimal.Decimal(1))
    assert coerce([1], Point) == Point(1)
    assert coerce({"x": 1}, Point) == Point(1)


def test_a_class_that_refuses_is_named_and_its_reason_is_the_cause() -> None:
    @dataclasses.dataclass
    class Positive:
        cents: int

        def __post_init__(self) -> None:
            if self.cents < 0:
                raise ValueError("negative")

    with pytest.raises(DecodeError, match="Positive refused the stored fields: ValueError") as caught:
        coerce({"cents": -1}, Positive)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_local_class_that_mentions_a_local_class_says_so() -> None:
    @dataclasses.dataclass
    class Inner:
        x: int

    @dataclasses.dataclass
    class Outer:
        inner: Inner
        me: Outer | None
        x: int

    with pytest.raises(DecodeError, match="the annotation 'Inner' names nothing that exists at run time"):
        coerce({"inner": {"x": 1}, "me": None, "x": 1}, Outer)


def test_subclasses_of_json_types() -> None:
    class Name(str):
        pass

    class Count(int):
        pass

    assert same(plain([Name("a"), Count(2), collections.OrderedDict(a=1)]), ["a", 2, {"a": 1}])
    assert same(coerce("a", Name), Name("a"))
    assert same(coerce(2, Count), Count(2))
    assert coerce({"a": 2}, collections.Counter[str]) == collections.Counter("aa")
    assert same(coerce({"a": 1}, collections.OrderedDict[str, int]), collections.OrderedDict(a=1))
    assert coerce({"a": [1]}, collections.defaultdict[str, list[int]]) == {"a": [1]}


def test_annotations_that_ask_for_nothing_cost_nothing() -> None:
    for annotation in (Any, object, T, typing.Never, Optional[Any]):
        assert coercer(annotation) is None


def test_bare_collections() -> None:
    assert [coerce([1, "a"], kind) for kind in (tuple, typing.Tuple, list, set)] == [
        (1, "a"),
        (1, "a"),
        [1, "a"],
        {1, "a"},
    ]
    assert coerce([], tuple[()]) == ()


def test_abstract_collections() -> None:
    assert coerce([1], collections.abc.Sequence[int]) == [1]
    assert coerce([1], collections.abc.Iterable[float]) == [1.0]
    assert coerce(["2024-01-01"], collections.abc.Set[dt.date]) == {dt.date(2024, 1, 1)}
    assert coerce({"1": 2}, collections.abc.Mapping[int, int]) == {1: 2}


def test_a_deeply_nested_record_is_a_decode_error() -> None:
    value: dict[str, Any] = {"value": 1}
    for _ in range(5000):
        value = {"value": 1, "left": value}
    with pytest.raises(DecodeError, match="nested too deeply"):
        coerce(value, Tree)
