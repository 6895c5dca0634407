"""One of several: literals, enums, unions.

A union takes the member whose stored form is exactly the value. Where several would, classes, enums, UUIDs, dates,
times and durations come before JSON's own types, and those before Decimal, bytes, paths, tuples and sets; two of one
rank are refused as ambiguous rather than guessed at. A list or dict ranks as what is in it. Only where no member fits
exactly is the first taken that fits at all (an older record of a class, a date written by hand).
"""

from __future__ import annotations

import collections.abc as abc
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .errors import NotSerializable
from .plain import family, plain, type_name
from .scalars import Coercer, Misfit, as_float, named, same, wrong

__all__ = ["enum", "identical", "literal", "union"]


def table(pairs: Iterable[tuple[Any, Any]]) -> Callable[[Any], tuple[Any] | None]:
    """Find what belongs to a plain value, where True is not 1: `(found,)` or None."""
    scalars: dict[Any, Any] = {}
    others: list[tuple[Any, Any]] = []
    for form, target in pairs:
        if isinstance(form, (list, dict)):
            others.append((form, target))
        else:
            scalars.setdefault((type(form), form), target)

    def find(value: Any) -> tuple[Any] | None:
        if isinstance(value, (list, dict)):
            return next(((target,) for form, target in others if identical(form, value)), None)
        key = (type(value), value)
        return (scalars[key],) if key in scalars else None

    return find


def identical(one: Any, other: Any) -> bool:
    """Whether two plain values are the same JSON: 1, 1.0 and true differ, the order of keys does not count."""
    if type(one) is not type(other):
        return False
    if type(one) is dict:
        return one.keys() == other.keys() and all(identical(item, other[key]) for key, item in one.items())
    if type(one) is list:
        return len(one) == len(other) and all(map(identical, one, other))
    return bool(one == other)


def literal(args: tuple[Any, ...]) -> Coercer:
    find = table((plain(arg, "Literal"), arg) for arg in args)

    def one_of(value: Any) -> Any:
        found = find(value)
        if found is None:
            raise Misfit(f"{named(value)} is none of the {len(args)} allowed values")
        return found[0]

    return one_of


def enum(cls: Any) -> Coercer:
    pairs = []
    for member in cls.__members__.values():
        try:
            pairs.append((plain(member), member))
        except NotSerializable:
            continue  # it cannot have been stored either
    find = table(pairs)
    base = next(base for base in cls.__mro__ if base.__module__ == "enum" and base.__name__ == "Enum")
    open_ended = cls._missing_.__func__ is not base._missing_.__func__  # flags, and enums that say what they accept

    def to_member(value: Any) -> Any:
        found = find(value)
        if found is not None:
            return found[0]
        if open_ended and type(value) in (int, str, float):
            try:
                return cls(value)
            except Exception:
                pass
        raise Misfit(f"{named(value)} is no value of {type_name(cls)}")

    return to_member


_NATIVE = (str, int, float, bool, type(None))
_EARLY = frozenset({"dataclass", "model", "enum", "uuid", "datetime", "date", "time", "timedelta"})
_LATE = frozenset({"decimal", "bytes", "path", "tuple", "set", "deque"})


def _rank(annotation: Any) -> int:
    while hasattr(annotation, "__metadata__") or hasattr(annotation, "__supertype__"):
        annotation = getattr(annotation, "__supertype__", None) or typing.get_args(annotation)[0]
    origin = typing.get_origin(annotation) or annotation
    if getattr(origin, "_name", "") == "Literal" or hasattr(origin, "__required_keys__"):
        return 0
    found = family(origin) if isinstance(origin, type) else None
    if found in _EARLY:
        return 0
    if found in _LATE or origin in (abc.Set, abc.MutableSet):
        return 2
    within = {_rank(arg) for arg in typing.get_args(annotation)}  # a list of dates is told apart as a date is
    return 0 if 0 in within else 2 if 2 in within else 1


def union(args: Sequence[Any], compile: Callable[[Any], Coercer | None]) -> Coercer | None:
    """The member that fits, by the order above; `compile` makes the members' conversions."""
    members = [None if arg is type(None) else arg for arg in args]
    optional = None in members
    rest = [member for member in members if member is not None]
    if len(rest) == 1:
        only = compile(rest[0])
        if only is None:
            return None
        return lambda value: None if value is None else only(value)
    if all(member in _NATIVE for member in rest):
        return _scalar_union(frozenset(rest), optional)
    ranked: list[tuple[int, Coercer]] = []
    for member in rest:
        convert = compile(member)
        ranked.append((1, same) if convert is None else (_rank(member), convert))
    names = " | ".join(type_name(member) if isinstance(member, type) else str(member) for member in rest)

    def fitting(value: Any) -> Any:
        if value is None and optional:
            return None
        loose: list[Any] = []
        for rank in (0, 1, 2):
            exact: list[Any] = []
            for own, convert in ranked:
                if own != rank:
                    continue
                try:
                    made = convert(value)
                except Misfit:
                    continue
                if rank == 1 and made is value:
                    return made
                if _stored_as(made, value):
                    if not any(type(other) is type(made) and _equal(other, made) for other in exact):
                        exact.append(made)
                else:
                    loose.append(made)
            if len(exact) > 1:
                both = " and ".join(type_name(type(made)) for made in exact[:2])
                raise Misfit(f"the stored value fits both {both}; a Literal field would tell them apart")
            if exact:
                return exact[0]
        if loose:
            return loose[0]
        raise wrong(names, value)

    return fitting


def _stored_as(made: Any, value: Any) -> bool:
    try:
        return identical(plain(made), value)
    except NotSerializable:
        return False


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:
        return False


def _scalar_union(kinds: frozenset[Any], optional: bool) -> Coercer:
    accepted = kinds | {type(None)} if optional else kinds
    expected = " | ".join(sorted(kind.__name__ for kind in kinds))
    to_float = as_float(float) if float in kinds else None
    as_int = int in kinds

    def scalar(value: Any) -> Any:
        if type(value) in accepted:
            return value
        if as_int and type(value) is bool:
            return value
        if to_float is not None and type(value) is int:
            return to_float(value)
        raise wrong(expected, value)

    return scalar
