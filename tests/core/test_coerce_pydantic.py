"""Pydantic models are stored as their JSON and restored by their own validation; Everstep never imports pydantic."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
from typing import Annotated, Literal

import pytest

from everstep.coerce import coerce, plain
from everstep.errors import DecodeError, NotSerializable
from tests.components import requires_component

requires_component("pydantic", hint="pip install -e '.[test-core]'")

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, RootModel, computed_field  # noqa: E402


class Item(BaseModel):
    sku: str
    price: decimal.Decimal
    when: dt.datetime
    note: Annotated[str, Field(alias="Note")] = ""


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    day: dt.date
    parts: tuple[int, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def year(self) -> int:
        return self.day.year


class OneWay(BaseModel):
    read: Annotated[int, Field(validation_alias=AliasChoices("in", "input"))]
    write: Annotated[int, Field(serialization_alias="out")]


class Names(RootModel[list[str]]):
    pass


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


@dataclasses.dataclass
class Basket:
    items: list[Item]


ITEM = Item(sku="a", price=decimal.Decimal("1.10"), when=dt.datetime(2024, 1, 1), Note="x")


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (ITEM, Item),
        (Strict(day=dt.date(2024, 1, 1), parts=(1, 2)), Strict),
        (OneWay.model_validate({"in": 1, "write": 2}), OneWay),
        (Names(["a"]), Names),
        (Basket([ITEM]), Basket),
        ([ITEM, None], list[Item | None]),
        (Dog(), Cat | Dog),
        ({"a": ITEM}, dict[str, Item]),
    ],
)
def test_a_model_comes_back(value: object, annotation: object) -> None:
    back = coerce(plain(value), annotation)
    assert back == value
    assert type(back) is type(value)


def test_what_a_model_refuses_is_named_without_its_value() -> None:
    with pytest.raises(DecodeError, match=r"\.items\[0\]\.price: .*Item refused it: decimal_parsing") as caught:
        coerce({"items": [{"sku": "a", "price": "secret", "when": "2024-01-01T00:00:00"}]}, Basket)
    assert "secret" not in str(caught.value)


def test_a_model_that_cannot_be_dumped_is_refused() -> None:
    class Odd(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        thing: object

    with pytest.raises(NotSerializable, match=r"card: .*Odd cannot be dumped as JSON"):
        plain(Odd(thing=object()), "card")


def test_an_infinite_float_is_not_turned_into_null() -> None:
    class Loose(BaseModel):
        x: float

    with pytest.raises(NotSerializable):
        plain(Loose(x=float("inf")))
