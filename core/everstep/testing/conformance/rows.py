"""Rows for the suites."""

from __future__ import annotations

from typing import Any

from everstep.ids import origin_of
from everstep.ports import Commit, Fence, Guard, Put, Store
from everstep.promise import Kind, State
from everstep.rows import Row

STRANGE_IDS = (
    "with space",
    " leading and trailing ",
    "path/like/this",
    "per%cent%20_under_score",
    "quo'te\"s`and\\back",
    "hash#question?and&plus+",
    "Grüße-日本語-🦉",
    "e\u0301 combining",
    "\U0010ffff\ud7ff\ue000",
    "~tilde",
    "UPPER",
    "upper",
    "colon:semi;comma,",
    "tab\tnewline\n",
    "__reserved__",
    "a" * 1000,
    "日" * 333,
)


def row(id: str, rev: int = 1, **changes: Any) -> Row:
    """A pending row of kind `step` in the branch of its origin, with these fields changed."""
    plain = Row(
        id=id,
        branch=origin_of(id),
        kind=Kind.STEP,
        state=State.PENDING.value,
        rev=rev,
        due=None,
        lease=None,
        epoch=None,
        n=None,
        param=None,
        value=None,
        timeout_at=None,
        created_at=1_700_000_000_000,
        settled_at=None,
        tags=None,
        task=None,
        rest=None,
    )
    return plain._replace(**changes)


async def write(store: Store, *rows: Row) -> None:
    """Write rows that do not exist yet, one commit each."""
    for new in rows:
        assert await store.commit(commit(Put(new, 0))) is None


def commit(
    *puts: Put, deletes: tuple[str, ...] = (), fence: Fence | None = None, guards: tuple[Guard, ...] = ()
) -> Commit:
    """A commit of the origin of whatever it touches first."""
    touched = [put.row.id for put in puts] + list(deletes)
    return Commit(origin_of(touched[0]), puts, deletes, fence, guards)
