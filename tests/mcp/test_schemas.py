"""Schemas describe the stored form: what fits one is taken by the start, and what comes back fits the other."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import pytest

from everstep import Context
from everstep.plain import plain
from everstep.signature import Signature
from tests.components import requires_component

requires_component("mcp", hint="pip install 'everstep[mcp]'")

from typing import NotRequired  # noqa: E402

import jsonschema  # noqa: E402
from pydantic import BaseModel, Field  # noqa: E402
from typing_extensions import TypedDict  # noqa: E402

from everstep.mcp.schemas import parameters, returned  # noqa: E402


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Line:
    name: str
    cents: int
    tags: list[str] = field(default_factory=list)


@dataclass
class Order:
    lines: list[Line]
    parent: Order | None = None


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Place(TypedDict):
    latitude: float
    name: NotRequired[str]


class Model(BaseModel):
    at: datetime
    price: Decimal


class Opaque:
    pass


VALUES: list[tuple[Any, Any]] = [
    (int, 3),
    (float, 2.5),
    (float, 2),
    (bool, True),
    (str, "x"),
    (None, None),
    (int | None, None),
    (list[int], [1, 2]),
    (dict[str, float], {"a": 1.0}),
    (dict[int, str], {1: "a"}),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (set[str], {"b", "a"}),
    (Colour, Colour.RED),
    (Literal["a", 2], 2),
    (Line, Line("desk", 400)),
    (Order, Order([Line("a", 1)], Order([]))),
    (Pair, Pair(1)),
    (Place, {"latitude": 1.0}),
    (Model, Model(at=datetime(2026, 1, 2, tzinfo=UTC), price=Decimal("1.10"))),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
    (date, date(2026, 1, 2)),
    (time, time(3, 4)),
    (timedelta, timedelta(days=1, seconds=2.5)),
    (Decimal, Decimal("10.50")),
    (UUID, UUID(int=7)),
    (bytes, b"\x00\xff"),
    (PurePosixPath, PurePosixPath("a/b")),
    (Line | Colour, Colour.BLUE),
    (Annotated[int, Field(ge=0, description="how many")], 4),
    (Any, {"free": [1, None]}),
]


def taking(hint: Any, default: Any = ...) -> Signature:
    """The signature of a workflow with one such argument that returns the same."""

    async def workflow(ctx: Context, it: Any) -> Any: ...

    workflow.__annotations__ = {"ctx": Context, "it": hint, "return": hint}
    if default is not ...:
        workflow.__defaults__ = (default,)
    KEPT.append(workflow)
    return Signature(workflow, skip_first=True)


KEPT: list[Any] = []
"""A signature does not keep its function alive."""


def takes(schema: dict[str, Any], value: Any) -> bool:
    jsonschema.Draft202012Validator.check_schema(schema)
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


@pytest.mark.parametrize(("hint", "value"), VALUES, ids=[str(hint) for hint, _ in VALUES])
def test_what_is_stored_fits_the_schema_and_what_fits_is_taken(hint: Any, value: Any) -> None:
    signature = taking(hint)
    flat, _ = signature.plain_args([value], {})
    stored = signature.plain_result(value)
    result, definitions = returned(signature)

    assert takes(parameters(signature), {"it": flat[0]})
    assert takes({**result, "$defs": definitions}, stored)
    assert signature.coerce_args(flat, {})[0] == [value]


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, "3"),
        (str, 3),
        (list[int], ["a"]),
        (Colour, "green"),
        (Literal["a"], "b"),
        (Line, {"name": "desk"}),
        (Line, {"name": 3, "cents": 4}),
        (tuple[int, str], [1]),
        (Place, {"name": "x"}),
        (Annotated[int, Field(ge=0)], -1),
    ],
    ids=str,
)
def test_what_does_not_fit_is_described_as_such(hint: Any, value: Any) -> None:
    assert not takes(parameters(taking(hint)), {"it": value})


@pytest.mark.parametrize("hint", [Opaque, "Unknown", Callable[[int], int]], ids=str)
def test_what_has_no_schema_takes_anything_here(hint: Any) -> None:
    assert parameters(taking(hint)) == {
        "type": "object",
        "properties": {"it": {}},
        "required": ["it"],
        "additionalProperties": False,
    }
    assert returned(taking(hint)) == ({}, {})


def test_defaults_are_shown_in_their_stored_form_and_are_not_required() -> None:
    schema = parameters(taking(timedelta, timedelta(hours=1)))

    assert schema["properties"]["it"]["default"] == plain(timedelta(hours=1))
    assert "required" not in schema
    assert "default" not in parameters(taking(Any, object()))["properties"]["it"]


def test_every_kind_of_parameter() -> None:
    async def workflow(ctx: Context, a: int, /, b: str = "x", *rest: float, c: bool, **more: Any) -> None: ...

    schema = parameters(Signature(workflow, skip_first=True))

    assert set(schema["properties"]) == {"a", "b", "rest", "c"}
    assert schema["properties"]["rest"] == {"type": "array", "items": {"type": "number"}}
    assert sorted(schema["required"]) == ["a", "c"]
    assert schema["additionalProperties"] is True


def test_two_classes_of_one_name_are_told_apart() -> None:
    @dataclass
    class Line:
        other: str

    async def workflow(ctx: Context, a: Any, b: Any) -> None: ...

    workflow.__annotations__.update(a=globals()["Line"], b=Line)
    schema = parameters(Signature(workflow, skip_first=True))

    assert takes(schema, {"a": {"name": "x", "cents": 1}, "b": {"other": "y"}})
    assert not takes(schema, {"a": {"other": "y"}, "b": {"other": "y"}})
