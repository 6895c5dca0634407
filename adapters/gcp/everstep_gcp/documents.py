"""Rows as Firestore documents. What is searched by are fields of their own; the rest is one map without an index.

    in      the branch and the row's own id, so that one look for an id finds a whole branch (rule I4)
    state, kind, due, root    as in the row; `root` only where it is one, `due` only where somebody must look
    done    of a settled root: the state, and in it the instant, so that retention reads no more than what is past it
    tags    each tag's name, after a `t`, and its value
    row     everything else, exempt from indexing; and `mark`, which differs with each attempt to write (rule F3)

This module imports the vendor's library, which is slow: whoever needs it imports it late.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from google.cloud.firestore_v1 import types

from everstep.errors import StoreCorrupted
from everstep.promise import State
from everstep.rows import Row

from .names import id_of

Document: Any = types.Document.pb()
Value: Any = types.Value.pb()

INDEXED_TAG = 1000
"""Characters of a tag's value beyond which an index might cut it off."""

_TEXTS = ("param", "value", "tags", "task", "rest")
_NUMBERS = ("rev", "lease", "epoch", "n", "timeout_at", "created_at", "settled_at")


class Standing(NamedTuple):
    """A document as it was read: its row, its writer's mark, and when it was written, which a precondition names."""

    row: Row
    mark: str
    updated: Any


def document(name: str, row: Row, mark: str) -> Any:
    """The document of a row."""
    made = Document(name=name)
    fields = made.fields
    around = fields["in"].array_value.values
    around.add(string_value=row.branch)
    around.add(string_value=row.id)
    fields["state"].string_value = row.state
    fields["kind"].string_value = row.kind
    if row.due is not None:
        fields["due"].integer_value = row.due
    if "." not in row.id:
        fields["root"].boolean_value = True
        if row.settled_at is not None:
            fields["done"].map_value.fields[row.state].integer_value = row.settled_at
    if row.tags is not None:
        _index_tags(fields["tags"].map_value.fields, row)
    inner = fields["row"].map_value.fields
    for key in _NUMBERS:
        number = getattr(row, key)
        if number is not None:
            inner[key].integer_value = number
    for key in _TEXTS:
        text = getattr(row, key)
        if text is not None:
            inner[key].string_value = text
    inner["mark"].string_value = mark
    return made


def _index_tags(fields: Any, row: Row) -> None:
    for tag, text in json.loads(row.tags or "{}").items():
        if isinstance(text, str) and len(text) <= INDEXED_TAG:
            fields[tag_field(tag)].string_value = text


def tag_field(tag: str) -> str:
    """The field of a tag: Firestore refuses empty names, and names like `__x__`."""
    return f"t{tag}"


def standing(found: Any) -> Standing:
    """What a document holds. Raises StoreCorrupted."""
    name = found.name.rpartition("/")[2]
    try:
        fields = found.fields
        inner = fields["row"].map_value.fields if "row" in fields else _missing("row")
        texts = {key: inner[key].string_value if key in inner else None for key in _TEXTS}
        numbers = {key: inner[key].integer_value if key in inner else None for key in _NUMBERS}
        row = Row(
            id=id_of(name),
            branch=fields["in"].array_value.values[0].string_value,
            kind=fields["kind"].string_value,
            state=State(fields["state"].string_value).value,
            rev=inner["rev"].integer_value if "rev" in inner else _missing("rev"),
            due=fields["due"].integer_value if "due" in fields else None,
            lease=numbers["lease"],
            epoch=numbers["epoch"],
            n=numbers["n"],
            param=texts["param"],
            value=texts["value"],
            timeout_at=numbers["timeout_at"],
            created_at=numbers["created_at"] or 0,
            settled_at=numbers["settled_at"],
            tags=texts["tags"],
            task=texts["task"],
            rest=texts["rest"],
        )
    except (LookupError, ValueError) as error:
        raise StoreCorrupted(f"the document {found.name!r} is none of Everstep's, or is damaged: {error}") from error
    return Standing(row, inner["mark"].string_value, found.update_time)


def _missing(what: str) -> Any:
    raise LookupError(f"the field {what!r} is missing")
