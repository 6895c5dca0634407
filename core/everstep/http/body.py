"""Request bodies: limited in size while they arrive, strict JSON, and every field accounted for by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from everstep.context import check_tags
from everstep.errors import InvalidArgument
from everstep.registry import milliseconds

from .problems import Problem, bad
from .strict import loads


async def read(request: Request, limit: int) -> bytes:
    """The body. Raises Problem 413 as soon as it is known to exceed `limit` bytes."""
    too_large = Problem(413, f"the body exceeds {limit} bytes", field="body")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise too_large
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise too_large
    return bytes(data)


async def read_object(request: Request, limit: int, *, known: Sequence[str]) -> Fields:
    """The body as a JSON object with no field but the known ones. No body at all is an empty object.

    Raises Problem 413, 415 for a body that does not claim to be JSON, 400 for one that is not.
    """
    data = await read(request, limit)
    if not data:
        return Fields({})
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        # Browsers send any other type to other sites without asking first.
        raise Problem(415, "send the body as application/json", headers={"accept": "application/json"})
    try:
        value = loads(data)
    except ValueError as error:
        raise bad("body", f"the body {error}") from None
    if not isinstance(value, dict):
        raise bad("body", "the body must be a JSON object")
    for name in value:
        if name not in known:
            raise bad(name, f"there is no field {name!r} here; known: {', '.join(known)}")
    return Fields(value)


class Fields:
    """A JSON object whose fields are taken by name and type."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def any(self, name: str) -> Any:
        return self.values.get(name)

    def text(self, name: str) -> str:
        value = self.optional_text(name)
        if value is None:
            raise bad(name, f"{name} is missing")
        return value

    def optional_text(self, name: str) -> str | None:
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise bad(name, f"{name} must be a string")
        return value

    def items(self, name: str) -> list[Any]:
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise bad(name, f"{name} must be an array")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        value = self.values.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise bad(name, f"{name} must be an object")
        return value

    def tags(self, name: str) -> dict[str, str] | None:
        if self.values.get(name) is None:
            return None
        try:
            return dict(check_tags(self.mapping(name)))
        except InvalidArgument as error:
            raise bad(name, str(error)) from None

    def seconds(self, name: str) -> float | None:
        value = self.values.get(name)
        if value is None:
            return None
        try:
            milliseconds(value, name)
        except InvalidArgument as error:
            raise bad(name, str(error)) from None
        return float(value)


def seconds_of(text: str, name: str) -> float:
    """A query parameter in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise bad(name, f"{name} must be a number of seconds from 0 on, not {text!r}")
    return value


def whole_of(text: str, name: str, low: int, high: int) -> int:
    """A query parameter as a whole number within bounds."""
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or not low <= int(text) <= high:
        raise bad(name, f"{name} must be a whole number from {low} to {high}, not {text!r}")
    return int(text)
