"""An exception keeps its type, message and attributes through text and into another process; nothing is pickled."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstep.codec import Codec
from everstep.errors import Conflict, Failed, NondeterminismError
from everstep.failures import describe, place, rebuild


class CardDeclined(Exception):
    """Its parameters are not its args, so that calling it again would fail."""

    limit: decimal.Decimal | None = None

    def __init__(self, code: int, *, retry_after: float) -> None:
        super().__init__(f"declined with {code}")
        self.code = code
        self.retry_after = retry_after


class Saying(Exception):
    def __init__(self, code: int) -> None:
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}, {getattr(self, 'where', 'nowhere')}"


class Outer:
    class Inner(ValueError):
        pass


class Slotted(Exception):
    __slots__ = ("code", "empty")


@dataclasses.dataclass
class Broken(Exception):
    code: int
    when: dt.date


class Wired(Exception):
    """Running any of this while rebuilding would be running what a store says."""

    ran = False

    def __init__(self) -> None:
        Wired.ran = True

    def __new__(cls, *args: Any) -> Wired:
        Wired.ran = bool(args)
        return super().__new__(cls)

    @property
    def trap(self) -> int:
        return 1

    @trap.setter
    def trap(self, value: int) -> None:
        Wired.ran = True


class Stop(BaseException):
    pass


class Many(ExceptionGroup[Exception]):
    pass


def through_text(exc: BaseException) -> Exception:
    codec = Codec()
    return rebuild(codec.decode(codec.encode(describe(exc))))


def test_the_class_the_message_and_the_attributes_come_back() -> None:
    exc = CardDeclined(51, retry_after=1.5)
    exc.limit = decimal.Decimal("10.50")
    back = through_text(exc)
    assert type(back) is CardDeclined
    assert str(back) == "declined with 51"
    assert (back.code, back.retry_after, back.limit) == (51, 1.5, decimal.Decimal("10.50"))
    assert back.args == ("declined with 51",)


@pytest.mark.parametrize(
    "exc",
    [
        ValueError(),
        ValueError("a", 1),
        KeyError("a"),
        KeyError((1, 2)),
        FileNotFoundError(2, "No such file", "x.txt"),
        OSError("plain"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        UnicodeEncodeError("ascii", "ü", 0, 1, "bad"),
        SyntaxError("bad", ("f.py", 1, 2, "x y", 1, 3)),
        ImportError("no", name="x"),
        AttributeError("no", name="x"),
        StopIteration(3),
        TimeoutError(),
        json.JSONDecodeError("bad", "{", 1),
        sqlite3.OperationalError("locked"),
        Saying(3),
        Outer.Inner("x"),
        Broken(1, dt.date(2024, 1, 2)),
        NondeterminismError("a.1", "x", "y"),
        Conflict("taken"),
        subprocess.CalledProcessError(1, ["x"]),
        ValueError("\ud800 and \0"),
        ValueError(object),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_any_exception_comes_back_as_one_of_its_class_with_its_message(exc: Exception) -> None:
    back = through_text(exc)
    assert isinstance(back, type(exc))
    assert type(back).__name__ == type(exc).__name__
    assert str(back) == str(exc).encode("utf-8", "backslashreplace").decode()
    assert back.__traceback__ is None
    again = through_text(back)
    assert (type(again).__name__, str(again)) == (type(back).__name__, str(back))
    repr(back)


def test_attributes_that_a_builtin_keeps_for_itself() -> None:
    back = through_text(FileNotFoundError(2, "No such file", "x.txt"))
    assert isinstance(back, FileNotFoundError)
    assert (back.errno, back.strerror, back.filename) == (2, "No such file", "x.txt")
    stop = through_text(StopIteration(3))
    assert isinstance(stop, StopIteration)
    assert stop.value == 3
    error = through_text(json.JSONDecodeError("bad", "{", 1))
    assert isinstance(error, json.JSONDecodeError)
    assert (error.msg, error.doc, error.pos) == ("bad", "{", 1)


def test_a_message_of_the_class_own_making_stays_the_recorded_one() -> None:
    exc = Saying(3)
    data = describe(exc)
    data["message"] = "as it was then"
    back = rebuild(data)
    assert isinstance(back, Saying)
    assert str(back) == "as it was then"
    assert describe(back) == data


def test_slots() -> None:
    exc = Slotted("x")
    exc.code = 5
    back = through_text(exc)
    assert isinstance(back, Slotted)
    assert back.code == 5


def test_annotated_attributes_get_their_types_back() -> None:
    back = through_text(Broken(1, dt.date(2024, 1, 2)))
    assert isinstance(back, Broken)
    assert back.when == dt.date(2024, 1, 2)


def test_nothing_of_the_class_is_run() -> None:
    data = {"type": "Wired", "module": __name__, "message": "m", "args": [1], "attributes": {"trap": 2, "__class__": 3}}
    Wired.ran = False
    back = rebuild(data)
    assert isinstance(back, Wired)
    assert not Wired.ran
    assert str(back) == "m"


def test_nothing_is_imported() -> None:
    code = (
        "import sys; from everstep.failures import rebuild;"
        "e = rebuild({'type': 'Error', 'module': 'wave', 'message': 'm', 'args': ['m']});"
        "from everstep.errors import Failed;"
        "print('wave' in sys.modules, isinstance(e, Failed), type(e).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="core")
    assert done.stdout.split() == ["False", "True", "Error"], done.stderr


def test_no_attribute_is_computed_to_find_a_class() -> None:
    class Lazy:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("looked up")

    sys.modules["lazy_for_a_test"] = Lazy()  # type: ignore[assignment]
    try:
        assert type(rebuild({"type": "X", "module": "lazy_for_a_test", "message": "m"})).__mro__[1] is Failed
    finally:
        del sys.modules["lazy_for_a_test"]


def test_where_the_class_is_not_at_hand_another_of_its_name_stands_in() -> None:
    class Local(Exception):
        pass

    exc = Local("gone", 3)
    exc.code = 51  # type: ignore[attr-defined]
    back = through_text(exc)
    assert not isinstance(back, Local)
    assert isinstance(back, Failed)
    assert type(back).__name__ == "Local"
    assert str(back) == str(exc)
    assert back.code == 51  # type: ignore[attr-defined]
    assert type(through_text(exc)) is type(back)


@pytest.mark.parametrize("exc", [Stop("now"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()], ids=repr)
def test_what_is_no_exception_is_never_rebuilt_as_itself(exc: BaseException) -> None:
    back = through_text(exc)
    assert isinstance(back, Failed)
    assert not isinstance(back, type(exc))
    assert type(back).__name__ == type(exc).__name__
    assert str(back) == str(exc)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "print"),
        ("builtins", "int"),
        ("os", "system"),
        ("builtins", "SystemExit"),
        ("", ""),
        ("builtins", ""),
    ],
)
def test_a_store_cannot_name_anything_but_an_exception(module: str, name: str) -> None:
    assert isinstance(rebuild({"type": name, "module": module, "message": "m", "args": ["m"]}), Failed)


def test_groups_keep_their_members() -> None:
    group = ExceptionGroup("two", [CardDeclined(1, retry_after=0), ExceptionGroup("inner", [KeyError("a")])])
    back = through_text(group)
    assert type(back) is ExceptionGroup
    assert str(back) == str(group)
    match, rest = back.split(CardDeclined)
    assert match is not None
    assert match.exceptions[0].code == 1  # type: ignore[union-attr]
    assert rest is not None
    many = through_text(Many("m", [ValueError("a")]))
    assert isinstance(many, Many)


def test_a_group_that_holds_a_base_exception_becomes_one_of_exceptions() -> None:
    group = BaseExceptionGroup("both", [KeyboardInterrupt(), ValueError("a")])
    back = through_text(group)
    assert isinstance(back, ExceptionGroup)
    assert [type(member).__name__ for member in back.exceptions] == ["KeyboardInterrupt", "ValueError"]


def test_a_group_of_a_class_that_is_gone_is_still_a_group() -> None:
    class LocalGroup(ExceptionGroup[Exception]):
        pass

    back = through_text(LocalGroup("m", [ValueError("a")]))
    assert isinstance(back, ExceptionGroup)
    assert isinstance(back, Failed)
    assert str(back) == "m (1 sub-exception)"
    assert back.split(ValueError)[0] is not None


def test_causes_and_notes() -> None:
    exc = ValueError("outer")
    exc.__cause__ = KeyError("inner")
    exc.add_note("seen at noon")
    back = through_text(exc)
    assert isinstance(back.__cause__, KeyError)
    assert back.__notes__ == ["seen at noon"]


def test_endless_causes_and_groups_have_an_end() -> None:
    exc = ValueError("round")
    exc.__cause__ = exc
    data = describe(exc)
    depth = 0
    while "cause" in data:
        data, depth = data["cause"], depth + 1
    assert depth == 8
    assert data["dropped"] == ["cause"]
    group: Exception = ValueError("x")
    for _ in range(50):
        group = ExceptionGroup("g", [group])
    rebuild(describe(group))
    json.dumps(describe(ExceptionGroup("wide", [ValueError("x" * 100) for _ in range(10_000)])))


def test_a_description_has_a_bounded_size() -> None:
    exc = ValueError("m" * 10**6, "a" * 10**6)
    exc.big = ["x" * 1000] * 1000  # type: ignore[attr-defined]
    exc.small = 1  # type: ignore[attr-defined]
    exc.add_note("n" * 10**6)
    data = describe(exc)
    assert len(json.dumps(data)) < 100_000
    assert data["attributes"] == {"small": 1}
    assert {"big", "args[0]"} <= set(data["dropped"])
    assert str(rebuild(data)) == data["message"]
    wide = ExceptionGroup("wide", [ValueError("x" * 1000) for _ in range(1000)])
    assert len(json.dumps(describe(wide))) < 200_000
    assert describe(wide)["dropped"][0].startswith("exceptions[")
    rebuild(describe(wide))


@pytest.mark.parametrize("limit", [256 * 1024, 10_000, 1_000, 100])
@pytest.mark.parametrize("character", ["x", "日", "\U0001f600", "\0", '"'])
def test_a_failure_can_always_be_recorded(limit: int, character: str) -> None:
    exc = ValueError(character * 100_000, *[character * 5_000] * 20)
    exc.notes = [character * 10_000] * 20  # type: ignore[attr-defined]
    exc.add_note(character * 50_000)
    exc.__cause__ = KeyError(character * 100_000)
    for codec in (Codec(limit=limit), Codec(limit=limit, encryptor=Swap())):
        payload = codec.encode_error(exc)
        assert payload.data is not None
        assert len(payload.data.encode()) <= max(limit, 200)
        assert isinstance(rebuild(codec.decode(payload)), Exception)
        assert codec.decode(payload)["type"] == "ValueError"


class Swap:
    def encrypt(self, data: bytes) -> tuple[str, bytes]:
        return "k", data[::-1]

    def decrypt(self, key_id: str, data: bytes) -> bytes:
        return data[::-1]


def test_a_long_message_is_cut_and_not_lost() -> None:
    for character in ("x", "日", "\U0001f600"):
        message = describe(ValueError(character * 100_000))["message"]
        assert message.startswith(character * 1_000)
        assert message.endswith("… (cut)")


def test_what_cannot_be_stored_is_dropped_by_name() -> None:
    exc = ValueError("m", object())
    exc.lock = object()  # type: ignore[attr-defined]
    exc.nan = float("nan")  # type: ignore[attr-defined]
    exc.ok = [1]  # type: ignore[attr-defined]
    data = describe(exc)
    assert data["attributes"] == {"ok": [1]}
    assert data["args"] == ["m", None]
    assert data["dropped"] == ["args[1]", "lock", "nan"]
    assert str(rebuild(data)) == str(exc)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no")


class Nameless(Exception, metaclass=Meta):
    pass


class Evasive(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no")


class NoText(Exception):
    def __str__(self) -> Any:
        return 3  # noqa: PLE0307


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__
    __eq__ = None  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no")


class Unsubclassable(Exception):
    def __init_subclass__(cls) -> None:
        raise RuntimeError("no")

    def __str__(self) -> str:
        return "another"


@pytest.mark.parametrize(
    "make",
    [
        Mute,
        lambda: Nameless("x"),
        lambda: Evasive("x"),
        NoText,
        lambda: ValueError(Hostile()),
        lambda: ExceptionGroup("g", [Mute(), Evasive()]),
    ],
    ids=["mute", "nameless", "evasive", "no text", "hostile argument", "group"],
)
def test_describing_never_fails(make: Callable[[], Exception]) -> None:
    exc = make()
    if type(exc) is ValueError:
        exc.__dict__[3] = 4  # type: ignore[index]
        exc.thing = Hostile()  # type: ignore[attr-defined]
    data = describe(exc)
    json.dumps(data, allow_nan=False)
    assert isinstance(rebuild(data), Exception)
    assert str(rebuild(data)) == data["message"]


def test_a_class_that_cannot_be_made_to_say_it_is_stood_in_for() -> None:
    data = describe(Unsubclassable("x")) | {"message": "recorded"}
    back = rebuild(data)
    assert isinstance(back, Failed)
    assert str(back) == "recorded"


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
KEYS = ["type", "module", "qualname", "message", "args", "attributes", "cause", "notes", "exceptions", "name"]
descriptions = st.recursive(
    json_values,
    lambda inner: st.dictionaries(
        st.sampled_from(KEYS),
        st.one_of(
            inner,
            json_values,
            st.lists(inner, max_size=2),
            st.sampled_from(
                ["builtins", __name__, "OSError", "ExceptionGroup", "UnicodeDecodeError", "Saying", "Many"]
            ),
            st.dictionaries(st.sampled_from(["args", "code", "errno", "__dict__", "characters_written"]), json_values),
        ),
    ),
    max_leaves=8,
)


@given(descriptions)
def test_rebuilding_takes_anything(data: Any) -> None:
    back = rebuild(data)
    assert isinstance(back, Exception)
    str(back)
    repr(back)
    if isinstance(data, dict) and isinstance(data.get("message"), str):
        assert str(back) == data["message"]
    json.dumps(describe(back))


@given(st.text(), st.lists(json_values, max_size=3), st.dictionaries(st.text(max_size=5), json_values, max_size=3))
def test_every_message_and_attribute_comes_back(message: str, args: list[Any], attributes: dict[str, Any]) -> None:
    exc = CardDeclined(1, retry_after=0)
    exc.args = (message, *args)
    kept = {name: value for name, value in attributes.items() if name not in ("args", "limit")}
    exc.__dict__.update(kept)
    back = through_text(exc)
    assert isinstance(back, CardDeclined)
    assert str(back) == str(exc).encode("utf-8", "backslashreplace").decode()
    assert back.args == exc.args
    for name, value in kept.items():
        assert name.startswith("__") or back.__dict__[name] == value


def test_what_others_reject_with() -> None:
    assert str(rebuild("no thanks")) == "no thanks"
    assert str(rebuild(None)) == ""
    assert str(rebuild(["x"])) == "['x']"
    foreign = rebuild({"name": "TypeError", "message": "x is not a function", "stack": "…"})
    assert type(foreign).__name__ == "TypeError"
    assert isinstance(foreign, Failed)
    assert str(foreign) == "x is not a function"


def test_each_rebuilt_exception_is_new() -> None:
    data = describe(ValueError("x"))
    assert rebuild(data) is not rebuild(data)


def test_the_place_of_a_failure_is_the_last_line_of_the_users_own() -> None:
    def in_the_library() -> None:
        json.loads("{")

    def in_everstep() -> None:
        Codec().encode(object())

    def here() -> None:
        raise ValueError("here")

    for fails in (in_the_library, in_everstep, here):
        with pytest.raises(Exception) as caught:
            fails()
        assert place(caught.value) == f"test_failures.py:{fails.__code__.co_firstlineno + 1}"
    assert place(ValueError("never raised")) == ""
