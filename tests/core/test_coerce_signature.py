"""A call is checked, stored and restored against the function's parameters, and every complaint names one."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import gc
import typing
import weakref
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import pytest

from everstep.coerce import signature_of
from everstep.errors import DecodeError, NotSerializable

if TYPE_CHECKING:
    from somewhere import Ghost


@dataclasses.dataclass
class Shape:
    name: str


@dataclasses.dataclass
class Circle(Shape):
    radius: float


class Options(TypedDict, total=False):
    day: dt.date
    copies: int


def charge(order_id: str, cents: int, /, when: dt.date | None = None, *, dry: bool = False) -> Shape: ...
def many(first: int, *days: dt.date, **shapes: Shape) -> None: ...
def printed(**options: Unpack[Options]) -> None: ...
def draw(shape: Shape, scale: float = 1.0) -> Circle: ...
def haunted(ghost: Ghost, other: int = 0) -> Ghost: ...
def keyed(a: int, *, b: int) -> None: ...


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "message"),
    [
        (charge, ("o", 1, None, 2), {}, r"charge\(\) takes 3 positional arguments but 4 were given"),
        (charge, ("o",), {}, r"charge\(\) is missing the argument 'cents'"),
        (charge, (), {}, r"charge\(\) is missing the arguments 'order_id', 'cents'"),
        (charge, ("o", 1), {"wen": None}, r"charge\(\) got an unexpected argument 'wen'; did you mean 'when'\?"),
        (charge, ("o", 1), {"cents": 1}, r"charge\(\) got an unexpected argument 'cents'"),
        (charge, ("o", 1, None), {"when": None}, r"charge\(\) got two values for the argument 'when'"),
        (keyed, (1,), {}, r"keyed\(\) is missing the argument 'b'"),
        (keyed, (), {"b": 1}, r"keyed\(\) is missing the argument 'a'"),
        (lambda: 0, (1,), {}, r"takes 0 positional arguments but 1 were given"),
    ],
)
def test_a_call_that_does_not_fit(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        signature_of(fn).bind(args, kwargs)


def test_equal_calls_have_one_form() -> None:
    bind = signature_of(charge).bind
    assert bind(("o", 1), {"when": None}) == bind(("o", 1, None), {}) == (["o", 1, None], {})
    assert bind(("o", 1), {"dry": True}) == (["o", 1], {"dry": True})
    assert signature_of(many).bind((1, DAY), {"x": 1}) == ([1, DAY], {"x": 1})
    assert signature_of(keyed).bind((), {"b": 1, "a": 2}) == ([2], {"b": 1})


DAY = dt.date(2024, 1, 2)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (charge, ["o", 1, DAY], {"dry": True}),
        (charge, ["o", 1], {}),
        (many, [1, DAY, DAY], {"a": Shape("x"), "b": Shape("y")}),
        (printed, [], {"day": DAY, "copies": 2}),
        (draw, [Shape("x"), 2.0], {}),
        (print, [1, "a"], {"sep": "x"}),
        (max, [1, 2], {"default": 3}),
    ],
)
def test_arguments_come_back(fn: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    signature = signature_of(fn)
    assert signature.coerce_args(*signature.plain_args(args, kwargs)) == (args, kwargs)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "error", "message"),
    [
        (charge, ("o", object()), {}, NotSerializable, r"argument 'cents' of charge\(\): object cannot be stored"),
        (charge, ("o", "1"), {}, TypeError, r"argument 'cents' of charge\(\): expected int, got str"),
        (many, (1, "x"), {}, TypeError, r"argument '\*days\[0\]' of many\(\): the string is not an ISO 8601 date"),
        (many, (1,), {"a": {}}, TypeError, r"argument 'a' of many\(\): the field 'name' of .*Shape is missing"),
        (printed, (), {"day": 1}, TypeError, r"argument 'day' of printed\(\): expected datetime.date as a string"),
        (
            draw,
            (Circle("c", 1.0),),
            {},
            NotSerializable,
            r"argument 'shape' of draw\(\): a Circle would come back as a Shape",
        ),
        (
            haunted,
            (Shape("x"),),
            {},
            NotSerializable,
            r"argument 'ghost' of haunted\(\): .*annotation 'Ghost' names nothing",
        ),
    ],
)
def test_what_would_not_come_back_is_refused_when_it_is_passed(
    fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        signature_of(fn).plain_args(args, kwargs)


def test_an_annotation_for_type_checkers_alone_does_not_spoil_the_others() -> None:
    signature = signature_of(haunted)
    assert signature.unresolved == {"ghost": "Ghost", "return": "Ghost"}
    assert signature.plain_args(({"name": "x"}, 1), {}) == ([{"name": "x"}, 1], {})
    with pytest.raises(DecodeError, match="argument 'other'"):
        signature.coerce_args(["x", "y"], {})


def test_results() -> None:
    signature = signature_of(draw)
    stored = signature.plain_result(Circle("c", 1))
    assert stored == {"name": "c", "radius": 1}
    assert signature.coerce_result(stored) == Circle("c", 1.0)
    convert = signature.result_coercer()
    assert convert is not None
    assert convert(stored) == Circle("c", 1.0)
    with pytest.raises(DecodeError, match=r"result of draw\(\): \.radius: expected float, got str"):
        convert({"name": "c", "radius": "1"})
    with pytest.raises(TypeError, match=r"result of draw\(\): the field 'radius'"):
        signature.plain_result(Shape("s"))
    with pytest.raises(NotSerializable, match=r"result of draw\(\): object cannot be stored"):
        signature.plain_result(object())
    assert signature_of(lambda: 0).result_coercer() is None


def test_a_stored_argument_that_does_not_fit_is_named() -> None:
    with pytest.raises(DecodeError, match=r"argument 'cents' of charge\(\): expected int, got list"):
        signature_of(charge).coerce_args(["o", []], {})
    with pytest.raises(DecodeError, match=r"argument 'dry' of charge\(\): expected bool, got int"):
        signature_of(charge).coerce_args(["o", 1], {"dry": 1})


class Context:
    """Not Everstep's."""


def test_the_context_is_not_passed_by_callers() -> None:
    def by_name(ctx, n: int): ...  # type: ignore[no-untyped-def]
    def by_text(c: everstep.Context, n: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821
    def another(c: Context2, n: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821
    def annotated(ctx: int, n: int) -> None: ...

    for fn in (by_name, by_text):
        assert signature_of(fn).skip_first
        assert signature_of(fn).names == ("n",)
    for fn in (another, annotated):
        assert not signature_of(fn).skip_first
    assert signature_of(another, skip_first=True).names == ("n",)
    assert signature_of(another, skip_first=False).names == ("c", "n")


def test_what_a_workflow_returns_in_the_end() -> None:
    def generator(ctx: Any) -> Generator[Any, Any, dt.date]: ...
    def awaitable() -> Awaitable[dt.date]: ...
    def iterator() -> typing.Iterator[int]: ...

    assert signature_of(generator).coerce_result("2024-01-02") == DAY
    assert signature_of(awaitable).coerce_result("2024-01-02") == DAY
    assert signature_of(iterator).coerce_result("anything") == "anything"


class Machine:
    def turn(self, when: dt.date) -> None: ...

    def __call__(self, when: dt.date) -> None: ...

    @classmethod
    def built(cls, when: dt.date) -> None: ...


def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any: ...

    return inner


@pytest.mark.parametrize(
    "fn",
    [
        Machine().turn,
        Machine(),
        Machine.built,
        functools.partial(Machine.turn, None),
        logged(Machine().turn),
    ],
)
def test_other_callables(fn: Any) -> None:
    assert signature_of(fn).coerce_args(["2024-01-02"], {}) == ([DAY], {})


def test_types_local_to_a_function_are_found_in_its_closure() -> None:
    @dataclasses.dataclass
    class Local:
        x: int

    def step(local: Local) -> Local:
        return Local(local.x)

    signature = signature_of(step)
    assert signature.coerce_args(*signature.plain_args((Local(1),), {})) == ([Local(1)], {})


def test_the_cache_does_not_keep_functions_alive() -> None:
    def fleeting(n: int) -> int: ...

    assert signature_of(fleeting) is signature_of(fleeting)
    gone = weakref.ref(fleeting)
    del fleeting
    gc.collect()
    assert gone() is None
