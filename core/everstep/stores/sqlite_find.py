"""A search as SQL. Every search reads in id order from the cursor on, so paging is stable while rows come and go.

The roots index begins with the state: a search of roots in any state is one ordered read per state, merged by SQLite.
"""

from __future__ import annotations

import json
from typing import Any

from everstep.ids import after
from everstep.ports import Query
from everstep.promise import Kind, State


def find_sql(query: Query, columns: str) -> tuple[str, list[Any]]:
    """The statement of a search and its parameters; it asks for one row more than a page holds."""
    terms: list[str] = []
    parameters: list[Any] = []

    def require(term: str, *values: Any) -> None:
        terms.append(term)
        parameters.extend(values)

    if query.cursor is not None:
        require("id > ?", query.cursor)
    if query.prefix:
        require("id >= ?", query.prefix)
        require("substr(id, 1, ?) = ?", len(query.prefix), query.prefix)
        end = after(query.prefix)
        if end is not None:
            require("id < ?", end)
    if query.kinds == (Kind.SCHEDULE,):
        require(f"kind = '{Kind.SCHEDULE}'")
    elif query.kinds:
        require(f"kind IN ({', '.join('?' * len(query.kinds))})", *query.kinds)
    else:
        require(f"kind <> '{Kind.SCHEDULE}'")
    if query.settled_before is not None:
        require("settled_at < ?", query.settled_before)
    if query.roots:
        require("instr(id, '.') = 0")
    if query.tags:
        require("everstep_has_tags(id, tags, ?)", json.dumps(dict(query.tags)))
    where = " AND ".join(terms)
    states = _states(query)
    if not states:
        sql = f"SELECT {columns} FROM everstep_rows WHERE {where}"
        values = parameters
    else:
        sql = " UNION ALL ".join(f"SELECT {columns} FROM everstep_rows WHERE state = ? AND {where}" for _ in states)
        values = [value for state in states for value in (state, *parameters)]
    return f"{sql} ORDER BY id LIMIT ?", [*values, query.limit + 1]


def _states(query: Query) -> list[str]:
    if query.state is not None:
        return [query.state]
    if not query.roots:
        return []
    return [state.value for state in State if query.settled_before is None or state is not State.PENDING]


def has_tags(text: str | None, wanted: str) -> bool:
    """Whether a row's tags hold every wanted one; SQLite calls it for rows that passed every other condition."""
    if text is None:
        return False
    tags = json.loads(text)
    return all(tags.get(name) == value for name, value in json.loads(wanted).items())
