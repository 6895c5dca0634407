"""Rows as Postgres keeps them, and requests as its functions take them.

Postgres holds any text but NUL. It is written as two characters, and the one they begin with as two others, so that
order and prefixes stay what they were (`\\0` < `\\1` < `\\2`). JSON escapes control characters, so that only what users
choose freely, ids, parameters and values, can hold one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from everstep.errors import StoreCorrupted, StoreError
from everstep.ports import Beside, Claim, Commit, Page, Query, Refused
from everstep.promise import Kind, State, make
from everstep.rows import Row

COLUMNS = Row._fields
_MARK = "\x01"
_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def escaped(text: str) -> str:
    """Text as Postgres can hold it."""
    if "\0" in text or _MARK in text:
        return text.replace(_MARK, "\x01\x02").replace("\0", "\x01\x01")
    return text


def unescaped(text: str) -> str:
    return text.replace("\x01\x01", "\0").replace("\x01\x02", _MARK) if _MARK in text else text


def cells(row: Row) -> tuple[Any, ...]:
    """A row as parameters."""
    id, branch, param, value = row[0], row[1], row[9], row[10]
    if (
        "\0" in id
        or _MARK in id
        or "\0" in branch
        or _MARK in branch
        or (param is not None and ("\0" in param or _MARK in param))
        or (value is not None and ("\0" in value or _MARK in value))
    ):
        return tuple([escaped(cell) if isinstance(cell, str) else cell for cell in row])
    return row


def row_from(found: Sequence[Any]) -> Row:
    """A row of what a query found, in the order of COLUMNS."""
    row: Row = make(Row, found)
    param, value = row[9], row[10]
    if (
        _MARK in row[0]
        or _MARK in row[1]
        or (param is not None and _MARK in param)
        or (value is not None and _MARK in value)
    ):
        return make(Row, [unescaped(cell) if isinstance(cell, str) else cell for cell in row])
    return row


def row_of(found: Mapping[str, Any]) -> Row:
    """A row of a JSON object. Raises StoreCorrupted."""
    try:
        return row_from([found[name] for name in COLUMNS])
    except (KeyError, TypeError) as error:
        raise StoreCorrupted(f"Postgres answered with no row: {str(found)[:200]}") from error


def text_of(request: Any) -> str:
    """A request as the text that a function takes. Raises StoreError for what is no Unicode."""
    text = _dumps(request)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise StoreError(f"cannot be stored: {error}") from error
    return text


def commit_request(commit: Commit) -> dict[str, Any]:
    """What `everstep.commit` takes."""
    fence = commit.fence
    return {
        "origin": escaped(commit.origin),
        "puts": [{"expect": expect, **dict(zip(COLUMNS, cells(row), strict=True))} for row, expect in commit.puts],
        "deletes": [escaped(id) for id in commit.deletes],
        "fence": [escaped(fence.id), fence.version] if fence is not None else [],
        "guards": [[escaped(id), rev] for id, rev in commit.guards],
    }


def claim_parameters(
    id: str, claim: Claim, beside: Beside | None
) -> tuple[str, str, str, int, int, int | None, list[str] | None]:
    """What `everstep.resume` takes. A NUL in a name would not come back as it went: then nothing is claimed."""
    target = claim.target if "\0" not in claim.target + claim.holder else ""
    warm, ids = (beside.version, [escaped(one) for one in beside.ids]) if beside is not None else (None, None)
    return escaped(id), target, claim.holder.replace("\0", ""), claim.ttl, claim.now, warm, ids


def inbox_from(text: str | None) -> tuple[str, ...] | None:
    """What `everstep.resume` says that it delivers; ids that are written with escapes are in none."""
    return tuple(json.loads(text)) if text is not None else None


def refusal(answer: str | None) -> Refused | None:
    """What `everstep.commit` answered."""
    if answer is None:
        return None
    told = json.loads(answer)
    found = {unescaped(id): row_of(row) if row is not None else None for id, row in told["found"].items()}
    return Refused(told["fenced"], found)


def find_request(query: Query, limit: int, cursor: str | None) -> dict[str, Any]:
    """What `everstep.find` takes."""
    prefix = escaped(query.prefix)
    return {
        "limit": limit,
        "cursor": escaped(cursor) if cursor is not None else None,
        "prefix": prefix,
        "after": _after(prefix),
        "kinds": list(query.kinds),
        "states": _states(query),
        "roots": query.roots,
        "settled_before": query.settled_before,
        "tags": [f"{_dumps(name)}:{_dumps(value)}" for name, value in query.tags.items()],
    }


def _states(query: Query) -> list[str]:
    """The states to look in, each of which is one read of the roots index; none: whatever the state."""
    if query.state is not None:
        return [query.state]
    if not query.roots or query.kinds == (Kind.SCHEDULE,):
        return []
    return [state.value for state in State if query.settled_before is None or state is not State.PENDING]


def _after(prefix: str) -> str | None:
    """The smallest text above every text that begins with `prefix`; None when there is none."""
    for end in range(len(prefix), 0, -1):
        code = ord(prefix[end - 1]) + 1
        if code <= 0x10FFFF:
            return prefix[: end - 1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
    return None


class Search:
    """A page put together from what `everstep.find` finds: it tests tags as text, so that each row is looked at again.

    Ask for `request`, hand what came to `take`, and again until there is a `page`.
    """

    def __init__(self, query: Query) -> None:
        self._query = query
        self.cursor = query.cursor
        self._rows: list[Row] = []
        self.page: Page | None = None

    @property
    def request(self) -> str:
        return text_of(find_request(self._query, self._query.limit, self.cursor))

    def take(self, found: Iterable[Row]) -> None:
        rows = list(found)
        limit = self._query.limit
        self._rows += [row for row in rows if self._fits(row)]
        if len(self._rows) > limit:
            page = self._rows[:limit]
            self.page = Page(page, page[-1].id)
        elif len(rows) <= limit:
            self.page = Page(self._rows, None)
        else:
            self.cursor = rows[-1].id

    def _fits(self, row: Row) -> bool:
        if not self._query.tags:
            return True
        try:
            tags = json.loads(row.tags) if row.tags is not None else {}
            return all(tags.get(name) == value for name, value in self._query.tags.items())
        except (ValueError, AttributeError) as error:
            raise StoreCorrupted(f"the row of {row.id!r} cannot be read: {error}") from error
