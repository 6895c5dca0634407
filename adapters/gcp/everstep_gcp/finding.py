"""Searches as Firestore queries, in the order of ids, served by the indexes that every collection has by itself.

Equality on fields and a range of names need no composite index: the automatic ones are merged, and each is in the order
of names. Whatever else is asked is checked on the documents that come back, so that a page may take several queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.cloud.firestore_v1 import types

from everstep.ids import after
from everstep.ports import Query
from everstep.promise import SCHEDULE_PREFIX, Kind
from everstep.rows import Row

from .connection import Query as Structured
from .documents import INDEXED_TAG, tag_field
from .names import name_of

_Filter: Any = types.StructuredQuery.Filter.pb()
_Value: Any = types.Value.pb()
_EQUAL = types.StructuredQuery.FieldFilter.Operator.EQUAL
_IN = types.StructuredQuery.FieldFilter.Operator.IN
_HOLDS = types.StructuredQuery.FieldFilter.Operator.ARRAY_CONTAINS
_AT_MOST = types.StructuredQuery.FieldFilter.Operator.LESS_THAN_OR_EQUAL
_BELOW = types.StructuredQuery.FieldFilter.Operator.LESS_THAN
_ABOVE = types.StructuredQuery.FieldFilter.Operator.GREATER_THAN
_AT_LEAST = types.StructuredQuery.FieldFilter.Operator.GREATER_THAN_OR_EQUAL
_UP = types.StructuredQuery.Direction.ASCENDING
_NAME = "__name__"
_MOST_KINDS = 30


class Searches:
    """The queries of one collection. `collection` is its full path."""

    def __init__(self, collection: str) -> None:
        self.collection = collection
        self._group = collection.rpartition("/")[2]

    def branch(self, id: str) -> Any:
        """Every row of a branch, and the row that it is named after."""
        return self._query([_field("in", _HOLDS, _Value(string_value=id))])

    def due(self, now: int, limit: int) -> Any:
        """Names and instants of what is due, oldest first."""
        made = self._query([_field("due", _AT_MOST, _Value(integer_value=now))], ("due", _NAME), limit)
        made.select.fields.add(field_path="due")
        return made

    def below(self, origin: str) -> Any:
        """Names of the rows below a root."""
        return self._names(self._query(self._range(f"{origin}.", f"{origin}/")))

    def settled(self, state: str, before: int) -> Any:
        """Names of the roots that were settled so before an instant."""
        field = f"done.{state}"
        return self._names(self._query([_field(field, _BELOW, _Value(integer_value=before))], (field, _NAME)))

    def page(self, query: Query, start: str | None, limit: int) -> Any:
        """Rows of a search from `start` on, or after the query's cursor."""
        low, high = start, after(query.prefix) if query.prefix else None
        filters = []
        if query.prefix and (low is None or low < query.prefix):
            low = query.prefix
        if query.cursor is not None and (low is None or low <= query.cursor):
            filters = [self._bound(_ABOVE, query.cursor)]
            low = None
        filters += self._range(low, high)
        if query.state is not None:
            filters.append(_field("state", _EQUAL, _Value(string_value=query.state)))
        if query.roots:
            filters.append(_field("root", _EQUAL, _Value(boolean_value=True)))
        if len(query.kinds) == 1:
            filters.append(_field("kind", _EQUAL, _Value(string_value=query.kinds[0])))
        elif 1 < len(query.kinds) <= _MOST_KINDS:
            kinds = _Value()
            for kind in query.kinds:
                kinds.array_value.values.add(string_value=kind)
            filters.append(_field("kind", _IN, kinds))
        for tag, text in query.tags.items():
            if len(text) <= INDEXED_TAG:
                filters.append(_field(f"tags.{_quoted(tag_field(tag))}", _EQUAL, _Value(string_value=text)))
        return self._query(filters, (_NAME,), limit)

    def _range(self, low: str | None, high: str | None) -> list[Any]:
        bounds = [] if low is None else [self._bound(_AT_LEAST, low)]
        return bounds if high is None else [*bounds, self._bound(_BELOW, high)]

    def _bound(self, how: Any, id: str) -> Any:
        return _field(_NAME, how, _Value(reference_value=f"{self.collection}/{name_of(id)}"))

    def _query(self, filters: Sequence[Any], order: Sequence[str] = (), limit: int | None = None) -> Any:
        made = Structured()
        made.from_.add(collection_id=self._group)
        if len(filters) == 1:
            made.where.CopyFrom(filters[0])
        elif filters:
            made.where.composite_filter.op = types.StructuredQuery.CompositeFilter.Operator.AND
            made.where.composite_filter.filters.extend(filters)
        for field in order:
            made.order_by.add(direction=_UP).field.field_path = field
        if limit is not None:
            made.limit.value = limit
        return made

    def _names(self, made: Any) -> Any:
        made.select.fields.add(field_path=_NAME)
        return made


def beyond_schedules(row: Row, query: Query) -> str:
    """From where a search goes on after this row: schedules are skipped at once where they are not wanted."""
    if row.kind == Kind.SCHEDULE and Kind.SCHEDULE not in query.kinds:
        end = after(SCHEDULE_PREFIX)
        assert end is not None
        return end
    return f"{row.id}\0"


def _field(path: str, op: Any, value: Any) -> Any:
    made = _Filter()
    made.field_filter.field.field_path = path
    made.field_filter.op = op
    made.field_filter.value.CopyFrom(value)
    return made


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"
