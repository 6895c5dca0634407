"""JSON as the standard has it: no NaN, no Infinity, no lone surrogate, in either direction."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from everstep.nesting import NestedTooDeeply, check_nesting


def dumps(value: Any) -> bytes:
    """JSON bytes. What JSON has no way to say (a NaN in a stored result, half a surrogate pair) becomes text."""
    try:
        return _encode(value).encode()
    except ValueError:
        return _encode(_plain(value)).encode()


def loads(data: bytes) -> Any:
    """The value of a JSON text. Raises ValueError, saying what is wrong, for anything the standard does not allow."""
    try:
        check_nesting(data)
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except NestedTooDeeply as error:
        raise ValueError(f"is {error}") from None
    except RecursionError:
        raise ValueError("is nested too deeply for the stack it was met on") from None
    if b"\\u" in data or b"e" in data or b"E" in data:
        _check(value)
    return value


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"contains {name}, which is not JSON")


def _check(value: Any) -> None:
    """1e999 parses to infinity, and half a surrogate pair is no text."""
    stack = [value]
    while stack:
        match stack.pop():
            case float() as number if not math.isfinite(number):
                raise ValueError("contains a number out of range")
            case str() as text:
                _check_text(text)
            case list() as items:
                stack.extend(items)
            case dict() as items:
                stack.extend(items)
                stack.extend(items.values())
            case _:
                pass


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("contains half a surrogate pair") from None


def _plain(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case str():
            return value.encode(errors="replace").decode()
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {_plain(str(key)): _plain(item) for key, item in value.items()}
        case _:
            return value
