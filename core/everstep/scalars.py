"""Values without an inside: strings, numbers, and what is stored as a string.

A leaf conversion takes exactly the stored form of its type (`plain` lists the forms), but an int passes for a float
and a bool for an int, as type checkers have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import DecodeError
from .plain import type_name

__all__ = ["SCALARS", "Coercer", "Misfit", "as_float", "named", "never", "none", "same", "told", "wrong"]

Coercer = Callable[[Any], Any]


class Misfit(DecodeError):
    """A value does not fit; the path is collected innermost first while it unwinds."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []

    def __str__(self) -> str:
        return self.told("")

    def told(self, where: str) -> str:
        """The message, with `where` and the path in front."""
        path = "".join(reversed(self.path))
        lead = ": ".join(part for part in (where, path) if part)
        return f"{lead}: {self.reason}" if lead else self.reason


def told(convert: Coercer, value: Any, where: str) -> Any:
    """Apply a coercer, with its refusal as a DecodeError that names `where`."""
    try:
        return convert(value)
    except Misfit as misfit:
        raise DecodeError(misfit.told(where)) from misfit.__cause__
    except RecursionError:
        raise DecodeError(f"{where or 'value'}: nested too deeply") from None


def same(value: Any) -> Any:
    return value


def never(reason: str) -> Coercer:
    def never(value: Any) -> Any:
        raise Misfit(reason)

    return never


def named(value: Any) -> str:
    if value is None:
        return "null"
    return "object" if type(value) is dict else type_name(type(value))


def wrong(expected: str, value: Any) -> Misfit:
    return Misfit(f"expected {expected}, got {named(value)}")


def none(value: Any) -> None:
    if value is not None:
        raise wrong("null", value)


def _str(cls: type) -> Coercer:
    def text(value: Any) -> Any:
        if type(value) is not str:
            raise wrong(type_name(cls), value)
        return value if cls is str else cls(value)

    return text


def _int(cls: type) -> Coercer:
    def integer(value: Any) -> Any:
        if type(value) is not int and type(value) is not bool:
            raise wrong(type_name(cls), value)
        return value if cls is int else cls(value)

    return integer


def _bool(cls: type) -> Coercer:
    def boolean(value: Any) -> Any:
        if type(value) is not bool:
            raise wrong("bool", value)
        return value

    return boolean


def as_float(cls: type) -> Coercer:
    def number(value: Any) -> Any:
        if type(value) is int:
            try:
                exact = float(value)
            except OverflowError:
                return value
            return cls(value) if exact == value else value  # beyond 2**53 an int says more than a float
        if type(value) is not float:
            raise wrong(type_name(cls), value)
        return value if cls is float else cls(value)

    return number


def _from_text(expected: str, parse: Callable[[Any, str], Any]) -> Callable[[type], Coercer]:
    def of(cls: type) -> Coercer:
        def convert(value: Any) -> Any:
            if type(value) is not str:
                raise wrong(f"{type_name(cls)} as a string", value)
            try:
                return parse(cls, value)
            except Misfit:
                raise
            except Exception:
                raise Misfit(f"the string is not {expected}") from None

        return convert

    return of


def _parse_date(cls: Any, text: str) -> Any:
    if "T" in text and cls.__module__ == "datetime":  # a datetime is a date, and may be passed for one
        from datetime import datetime

        return datetime.fromisoformat(text)
    return cls.fromisoformat(text)


def _parse_duration(cls: Any, text: str) -> Any:
    import re

    match = re.fullmatch(
        r"([+-])?P(?:([+-]?\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d{1,6}))?S)?)?", text, re.ASCII
    )
    if match is None or text.endswith(("P", "T")):
        raise ValueError
    sign, days, hours, minutes, seconds, fraction = match.groups()
    length = cls(
        days=int(days or 0),
        hours=int(hours or 0),
        minutes=int(minutes or 0),
        seconds=int(seconds or 0),
        microseconds=int((fraction or "0").ljust(6, "0")),
    )
    return -length if sign == "-" else length


def _duration(cls: type) -> Coercer:
    parse = _from_text("an ISO 8601 duration", _parse_duration)(cls)

    def convert(value: Any) -> Any:
        if type(value) in (int, float):  # seconds, as the API takes them; what a person or an HTTP client would send
            try:
                return cls(seconds=value)
            except (OverflowError, ValueError):
                raise Misfit("the number of seconds is out of range") from None
        return parse(value)

    return convert


def _decimal(cls: type) -> Coercer:
    parse = _from_text("a decimal number", lambda cls, text: cls(text))(cls)

    def convert(value: Any) -> Any:
        number = parse(repr(value) if type(value) in (int, float) else value)
        if not number.is_finite():
            raise Misfit("the string is not a finite decimal number")
        return number

    return convert


def _parse_bytes(cls: Any, text: str) -> Any:
    from binascii import a2b_base64

    return cls(a2b_base64(text, strict_mode=True))


_bytes = _from_text("base64", _parse_bytes)

SCALARS: dict[str | None, Callable[[type], Coercer]] = {
    "str": _str,
    "int": _int,
    "bool": _bool,
    "float": as_float,
    "datetime": _from_text("an ISO 8601 date and time", lambda cls, text: cls.fromisoformat(text)),
    "date": _from_text("an ISO 8601 date", _parse_date),
    "time": _from_text("an ISO 8601 time", lambda cls, text: cls.fromisoformat(text)),
    "timedelta": _duration,
    "decimal": _decimal,
    "uuid": _from_text("a UUID", lambda cls, text: cls(text)),
    "path": _from_text("a path", lambda cls, text: cls(text)),
    "bytes": _bytes,
}
