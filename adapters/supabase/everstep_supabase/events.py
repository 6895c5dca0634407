"""Database Webhooks as events: an AFTER trigger that posts `{type, table, schema, record, old_record}`.

They carry no delivery id and no order, and come once, or not at all, or, when somebody repeats them, again. The row is
the identity: its primary key, its table and what happened to it. What two updates of one row are to be told apart by is
the trigger's to say (`id=`); by default a digest of the row as it became does.
"""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Any

from everstep.errors import InvalidArgument
from everstep.events import Event
from everstep.nesting import loads

TYPES = ("INSERT", "UPDATE", "DELETE")


def webhook(body: bytes, *, key: str = "id") -> Event:
    """The event a webhook's body is: kind "postgres", source `schema.table`, type INSERT, UPDATE or DELETE.

    `data` is the row (of a DELETE, the old one), with whole numbers as int and others as text, so that no digit of a
    `numeric` is lost; `attributes` has `old_record`.

    Args:
        key: the column that identifies a row; where a row has none, a digest of the whole row does.

    Raises:
        InvalidArgument: the body is no such webhook; the message says what is wrong.
    """
    try:
        told = loads(body, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"a webhook is JSON: {error}") from None
    match told:
        case {"type": str(type), "table": str(table), "schema": str(schema), **rest} if type in TYPES:
            pass
        case _:
            raise InvalidArgument('a webhook is {"type", "table", "schema", "record", "old_record"}')
    record, old = rest.get("record"), rest.get("old_record")
    row = old if type == "DELETE" else record
    if not isinstance(row, dict) or not isinstance(old, dict | None):
        raise InvalidArgument(f"a webhook of {type} has the row in {'old_record' if type == 'DELETE' else 'record'}")
    row, old = _plain(row), _plain(old)
    identity = row.get(key)
    name = str(identity) if isinstance(identity, int | str) else _digest(row)
    if type == "UPDATE":
        name = f"{name}/{_digest(row)}"
    return Event(
        id=name if type == "INSERT" else f"{type.lower()}/{name}",
        kind="postgres",
        source=f"{schema}.{table}",
        type=type,
        data=row,
        attributes={"old_record": old},
    )


def _digest(row: Any) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {name: _plain(one) for name, one in value.items()}
        case list():
            return [_plain(one) for one in value]
        case Decimal():
            return str(value)
        case _:
            return value
