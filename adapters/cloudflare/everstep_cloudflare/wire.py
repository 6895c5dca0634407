"""What objects say to each other: one JSON text there, one JSON text back.

Text crosses the boundary between Python and JavaScript unchanged, whatever is in it; anything richer is converted on
the way, and an exception would arrive as a text about itself. So errors travel as data, and are raised again here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from everstep import errors
from everstep.errors import EverstepError, StoreError, StoreUnavailable
from everstep.ports import Commit, Fence, Guard, Put, Query, Refused
from everstep.rows import Row

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def request(op: str, **arguments: Any) -> str:
    """A call as text."""
    return _encode({"op": op, **arguments})


def reply(value: Any) -> str:
    """An answer as text."""
    return _encode({"ok": value})


def failure(error: EverstepError) -> str:
    """An error as text."""
    return _encode({"error": type(error).__name__, "message": str(error)})


def parse(text: str) -> dict[str, Any]:
    """A call from its text. Raises StoreError for what is none."""
    try:
        body = json.loads(text)
    except ValueError as error:
        raise StoreError(f"a call of an object is JSON: {error}") from None
    if not isinstance(body, dict) or not isinstance(body.get("op"), str):
        raise StoreError("a call of an object names its operation")
    return body


def answer(text: str) -> Any:
    """What was answered; raises the error that was."""
    body = json.loads(text)
    if "error" in body:
        kind = getattr(errors, body["error"], StoreUnavailable)
        known = isinstance(kind, type) and issubclass(kind, StoreError)
        raise (kind if known else StoreUnavailable)(body["message"])
    return body["ok"]


def commit_to(commit: Commit) -> dict[str, Any]:
    data: dict[str, Any] = {"origin": commit.origin, "puts": commit.puts}
    if commit.deletes:
        data["deletes"] = commit.deletes
    if commit.fence is not None:
        data["fence"] = commit.fence
    if commit.guards:
        data["guards"] = commit.guards
    return data


def commit_from(data: Mapping[str, Any]) -> Commit:
    fence = data.get("fence")
    return Commit(
        data["origin"],
        tuple([Put(Row._make(row), expect) for row, expect in data["puts"]]),
        tuple(data.get("deletes", ())),
        Fence(*fence) if fence is not None else None,
        tuple([Guard(*guard) for guard in data.get("guards", ())]),
    )


def refused_to(refused: Refused | None) -> Any:
    return None if refused is None else [refused.fenced, refused.found]


def refused_from(data: Any) -> Refused | None:
    if data is None:
        return None
    return Refused(data[0], {id: None if row is None else Row._make(row) for id, row in data[1].items()})


def query_to(query: Query) -> dict[str, Any]:
    return query._asdict()


def query_from(data: Mapping[str, Any]) -> Query:
    return Query(**{**data, "kinds": tuple(data["kinds"])})


def rows_from(data: Any) -> list[Row]:
    return [Row._make(row) for row in data]
