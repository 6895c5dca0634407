"""Python values to JSON-plain values: what cannot be stored is refused, never approximated.

Plain means None, bool, int, float, str, a list of plain values, or a dict from str to plain values, of exactly these
types. The forms are lossless given the annotation (`coerce` is the way back):

    dataclass           dict of its fields            datetime, date, time    ISO 8601
    enum                its value                     timedelta               ISO 8601 duration, `-P1DT2.5S`
    tuple, deque        list                          Decimal, UUID, path     its text
    set, frozenset      sorted list                   bytes                   base64
    pydantic model      its JSON dump                 subclass of a JSON type the JSON type

A dict key is stored as the text of its plain form, where that is a string or an integer (so enums, UUIDs and dates
can be keys); two keys with one text are refused. NaN and infinities are refused: NaN differs from itself, so a replay
that compares arguments would never match. Messages name types and paths, never values, which may be secret.

Types of the standard library are recognised by name, so that nothing is imported for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .errors import NotSerializable

__all__ = ["MAX_DEPTH", "plain", "type_name"]

MAX_DEPTH = 100
"""Nesting allowed in a stored value: well under what the interpreter's stack and every JSON reader can take."""

_ATOMS = frozenset({str, int, bool, type(None)})
_PATH_SHOWN = 12
_CIRCLE_LONGEST = 500


class Refused(Exception):
    """Internal: why a value has no plain form; the path is collected innermost first while it unwinds."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


class TooDeep(Refused):
    """Internal: the nesting limit, met honestly or by going round in a circle."""

    def __init__(self) -> None:
        super().__init__(f"nested deeper than {MAX_DEPTH} levels")


def plain(value: Any, where: str = "value") -> Any:
    """The JSON-plain form of a value; the value itself, not a copy, where it is plain already.

    Args:
        value: what to store.
        where: names the value in errors, such as `argument 'card' of charge()`.

    Raises:
        NotSerializable: something in it has no exact plain form; the message holds `where`, the path and the type.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    try:
        return _plain(value, MAX_DEPTH)
    except TooDeep as refusal:
        if _circular(value):
            raise NotSerializable(f"{where}: the structure contains itself (circular) and cannot be stored") from None
        shown = "".join(refusal.path[: -_PATH_SHOWN - 1 : -1])
        raise NotSerializable(f"{where}: {shown}…: {refusal.reason}") from None
    except RecursionError:
        raise NotSerializable(f"{where}: nested too deeply for the stack it was met on") from None
    except Refused as refusal:
        shown = "".join(reversed(refusal.path))
        raise NotSerializable(f"{where}: {shown and shown + ': '}{refusal.reason}") from refusal.__cause__


def type_name(kind: type) -> str:
    """How messages name a type: qualified, except for builtins."""
    module = getattr(kind, "__module__", None)
    name = getattr(kind, "__qualname__", None) or repr(kind)
    return str(name) if module in (None, "builtins") else f"{module}.{name}"


def _plain(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is dict:
        return _dict(value, depth)
    if kind is list:
        return _list(value, depth)
    handler = _handlers.get(kind)
    if handler is None:
        handler = _handlers[kind] = _find(kind)
    return handler(value, depth)


def _dict(value: dict[Any, Any], depth: int) -> dict[str, Any]:
    # Keys first: starting over once items have been visited would double the work at every level of nesting.
    for key in value:
        if type(key) is not str:
            return _keyed(value, depth)
    if not depth:
        raise TooDeep
    changed: dict[str, Any] | None = None
    for key, item in value.items():
        if type(item) in _ATOMS:
            continue
        try:
            flat = _plain(item, depth - 1)
        except Refused as refusal:
            refusal.path.append(step(key))
            raise
        if flat is not item:
            if changed is None:
                changed = dict(value)
            changed[key] = flat
    return value if changed is None else changed


def _keyed(value: dict[Any, Any], depth: int) -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    for key, item in value.items():
        text = _key(key, depth)
        if text in renamed:
            raise Refused(f"two keys would both be stored as {text[:40]!r}")
        renamed[text] = item
    return _dict(renamed, depth)


def _key(key: Any, depth: int) -> str:
    kind = type(key)
    if kind is str:
        return str(key)
    try:
        flat = key if kind is int else _plain(key, depth)
    except Refused:
        flat = None
    if type(flat) is str:
        return flat
    if type(flat) is int:
        return _int_text(flat)
    raise Refused(f"a key of type {type_name(kind)} cannot be stored (a key must be a string or have a string form)")


def _int_text(value: int) -> str:
    try:
        return str(value)
    except ValueError:
        raise Refused("an integer of more digits than the interpreter writes out cannot be stored") from None


def _list(value: list[Any], depth: int) -> list[Any]:
    if not depth:
        raise TooDeep
    changed: list[Any] | None = None
    for index, item in enumerate(value):
        if type(item) in _ATOMS:
            continue
        try:
            flat = _plain(item, depth - 1)
        except Refused as refusal:
            refusal.path.append(step(index))
            raise
        if flat is not item:
            if changed is None:
                changed = list(value)
            changed[index] = flat
    return value if changed is None else changed


def step(place: Any) -> str:
    """One step of a path as messages show it: `.field`, `['a key']`, `[3]`."""
    if isinstance(place, str):
        return f".{place}" if place.isidentifier() else f"[{place[:40]!r}]"
    return f"[{place}]"


_Handler = Callable[[Any, int], Any]


def _float(value: Any, depth: int) -> float:
    number = float.__float__(value)
    if number - number != 0.0:
        raise Refused("a float that is NaN or infinite cannot be stored")
    return number


def _unordered(value: Iterable[Any], depth: int) -> list[Any]:
    import json

    if not depth:
        raise TooDeep
    flat = []
    for item in value:
        try:
            flat.append(_plain(item, depth - 1))
        except Refused as refusal:
            refusal.path.append("{…}")
            raise
    # Set order differs from process to process (P4): order by text first, so that the natural sort, where there is
    # one, has only ties and never an input order to keep.
    flat.sort(key=lambda item: json.dumps(item, sort_keys=True))
    try:
        return sorted(flat)
    except TypeError:
        return flat


def _enum(value: Any, depth: int) -> Any:
    try:
        return _plain(value._value_, depth)
    except Refused as refusal:
        refusal.path.append(".value")
        raise


def _dataclass(value: Any, depth: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, field in type(value).__dataclass_fields__.items():
        role = getattr(field._field_type, "name", "_FIELD")
        if role == "_FIELD":
            try:
                out[name] = getattr(value, name)
            except AttributeError:
                raise Refused(f"the field {name!r} of {type_name(type(value))} has no value") from None
        elif role == "_FIELD_INITVAR" and _has_no_default(field):
            raise Refused(
                f"{type_name(type(value))} cannot be stored: its InitVar {name!r} has no default and is not kept"
            )
    return _dict(out, depth)


def _has_no_default(field: Any) -> bool:
    from dataclasses import MISSING

    return field.default is MISSING and field.default_factory is MISSING


def _model(value: Any, depth: int) -> Any:
    try:
        dumped = value.model_dump(mode="json", by_alias=not models_by_name(), round_trip=True)
    except Exception as error:
        refusal = Refused(f"{type_name(type(value))} cannot be dumped as JSON: {type(error).__name__}")
        raise refusal from error
    return _plain(dumped, depth)


def models_by_name() -> bool:
    """Whether pydantic can validate by field name (2.11): an alias used for one direction only then round-trips."""
    import sys

    version = str(getattr(sys.modules.get("pydantic"), "VERSION", "0"))
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) >= (2, 11)


def _decimal(value: Any, depth: int) -> str:
    if not value.is_finite():
        raise Refused("a Decimal that is NaN or infinite cannot be stored")
    return str(value)


def _duration(value: Any, depth: int) -> str:
    """ISO 8601: exact to the microsecond, where a number of seconds is not."""
    if value.days < 0:
        return "-" + _duration(-value, depth)
    micros = value.microseconds
    seconds = f"{value.seconds}.{micros:06}".rstrip("0") if micros else str(value.seconds)
    if not value.days:
        return f"PT{seconds}S"
    return f"P{value.days}D" + (f"T{seconds}S" if value.seconds or micros else "")


def _base64(value: Any, depth: int) -> str:
    from binascii import b2a_base64

    return b2a_base64(value, newline=False).decode("ascii")


def _str_of(value: Any, depth: int) -> str:
    return str(value)


def _iso(value: Any, depth: int) -> str:
    return str(value.isoformat())


def _zoned(value: Any, depth: int) -> str:
    if value.tzinfo is not None:
        offset = value.utcoffset()
        if offset is not None and offset.microseconds:  # written by isoformat, but not always read by fromisoformat
            raise Refused("a UTC offset with a fraction of a second cannot be stored")
    return str(value.isoformat())


STANDARD: dict[tuple[str, str], str] = {
    ("datetime", "datetime"): "datetime",
    ("datetime", "date"): "date",
    ("datetime", "time"): "time",
    ("datetime", "timedelta"): "timedelta",
    ("decimal", "Decimal"): "decimal",
    ("_pydecimal", "Decimal"): "decimal",
    ("uuid", "UUID"): "uuid",
    ("enum", "Enum"): "enum",
    ("pathlib", "PurePath"): "path",
    ("pathlib._local", "PurePath"): "path",
    ("collections", "deque"): "deque",
    ("builtins", "bytes"): "bytes",
    ("builtins", "bytearray"): "bytes",
    ("builtins", "set"): "set",
    ("builtins", "frozenset"): "set",
    ("builtins", "tuple"): "tuple",
    ("builtins", "list"): "list",
    ("builtins", "dict"): "dict",
    ("builtins", "str"): "str",
    ("builtins", "bool"): "bool",
    ("builtins", "int"): "int",
    ("builtins", "float"): "float",
    ("pydantic.main", "BaseModel"): "model",
}
"""Known types by (module, name), looked up along the MRO."""

_BY_FAMILY: dict[str, _Handler] = {
    "datetime": _zoned,
    "date": _iso,
    "time": _zoned,
    "timedelta": _duration,
    "decimal": _decimal,
    "uuid": _str_of,
    "enum": _enum,
    "path": _str_of,
    "deque": lambda value, depth: _list(list(value), depth),
    "bytes": _base64,
    "set": _unordered,
    "tuple": lambda value, depth: _list(list(value), depth),
    "list": lambda value, depth: _list(list(value), depth),
    "dict": lambda value, depth: _dict(dict(value), depth),
    "str": lambda value, depth: str.__str__(value),
    "int": lambda value, depth: int.__int__(value),
    "float": _float,
    "model": _model,
}

_handlers: dict[type, _Handler] = {}


def family(kind: type) -> str | None:
    """Which known kind a class belongs to: `enum` before what an enum mixes in, a dataclass before what it extends."""
    mro = getattr(kind, "__mro__", ())
    names = [STANDARD.get((base.__module__, base.__qualname__)) for base in mro]
    if "enum" in names:
        return "enum"
    if "model" in names:
        return "model"
    if "__dataclass_fields__" in dir(kind):
        return "dataclass"
    return next((name for name in names if name is not None), None)


def _find(kind: type) -> _Handler:
    found = family(kind)
    if found == "dataclass":
        return _dataclass
    if found is not None:
        return _BY_FAMILY[found]
    reason = f"{type_name(kind)} cannot be stored"
    if hasattr(kind, "__await__"):
        reason += "; await it for its value"
    else:
        reason += "; make it a dataclass or JSON"

    def refuse(value: Any, depth: int) -> Any:
        raise Refused(reason)

    return refuse


def _circular(value: Any) -> bool:
    """Whether a container holds itself; only asked once nesting has exceeded the limit."""
    stack: list[tuple[Any, frozenset[int]]] = [(value, frozenset())]
    budget = 100_000
    while stack and budget:
        budget -= 1
        item, above = stack.pop()
        if id(item) in above:
            return True
        if len(above) > _CIRCLE_LONGEST:
            continue
        if isinstance(item, dict):
            inner: Iterable[Any] = item.values()
        elif isinstance(item, (list, tuple)):
            inner = item
        elif hasattr(type(item), "__dataclass_fields__"):
            inner = vars(item).values() if hasattr(item, "__dict__") else ()
        else:
            continue
        line = above | {id(item)}
        stack.extend((child, line) for child in inner)
    return False
