"""The two ports. Whatever a second platform would have to copy does not belong behind them.

A store keeps rows; a waker calls back. Neither decides anything: every transition was decided before it reaches a
store, and re-checked when a waker calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from .rows import Row


class Fence(NamedTuple):
    """Commit only while the row `id` has `lease == version` (rule F1).

    `soft` marks the one write that a store without cheap multi-record conditions may leave unfenced: the fused
    create-and-settle of a local step, which rules P1 and P2 make safe.
    """

    id: str
    version: int
    soft: bool = False


class Put(NamedTuple):
    """Write `row` whole. `expect` is the rev that must stand now; 0 means that no such row may exist."""

    row: Row
    expect: int


class Guard(NamedTuple):
    """Commit only while the row `id` still has this rev. A single-writer store checks it (rule W4); any other where
    the commit deletes that row."""

    id: str
    rev: int


class Commit(NamedTuple):
    """A set of writes of one origin, all or nothing. `deletes` are ids removed with it, present or not: a guard on one
    makes that a condition."""

    origin: str
    puts: tuple[Put, ...]
    deletes: tuple[str, ...] = ()
    fence: Fence | None = None
    guards: tuple[Guard, ...] = ()


class Refused(NamedTuple):
    """A commit that did not happen: the fence did not hold, or `found` holds the rows (None: absent) in the way."""

    fenced: bool
    found: Mapping[str, Row | None]


class Due(NamedTuple):
    id: str
    due: int


class Query(NamedTuple):
    """A search. `tags` must all be equal; `prefix` is of the id; `kinds` of rows; instants in milliseconds."""

    state: str | None = None
    tags: Mapping[str, str] = {}
    prefix: str = ""
    roots: bool = False
    kinds: tuple[str, ...] = ()
    settled_before: int | None = None
    limit: int = 100
    cursor: str | None = None


class Page(NamedTuple):
    """Rows in id order, and the cursor of the next page where there is one. Schedules are found only by kind."""

    rows: list[Row]
    cursor: str | None


class Store(Protocol):
    """Durable rows. Reads are consistent unless said otherwise; every method raises StoreError and nothing else."""

    @property
    def single_writer(self) -> bool:
        """True where a commit sees every earlier commit of its origin and checks `guards` with it (rule W4); always so
        where the waker reads the store's `due` column."""
        ...

    @property
    def folds(self) -> bool:
        """True where deleting rows is cheap, so that folding a history pays."""
        ...

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        """The rows of these ids that exist; ids may span origins."""
        ...

    async def branch(self, id: str) -> list[Row]:
        """The row `id` and every row whose `branch` is `id`, in one request and in any order (rule I4)."""
        ...

    async def commit(self, commit: Commit) -> Refused | None:
        """Write all of it or none. None means written. Raises OutcomeUnknown when that cannot be told (rule F3)."""
        ...

    async def due(self, now: int, limit: int) -> list[Due]:
        """Rows with `due <= now`, oldest first."""
        ...

    async def find(self, query: Query) -> Page:
        """Search; may lag behind writes."""
        ...

    async def delete(self, origin: str) -> int:
        """Remove every row of an origin (retention, rule T1); returns how many."""
        ...

    async def close(self) -> None: ...


class Claim(NamedTuple):
    """Who wants a suspended task, from `now` for `ttl` milliseconds, for the App at `target`."""

    target: str
    holder: str
    ttl: int
    now: int


class Beside(NamedTuple):
    """What a body that was kept warm at this version of its task still needs to see."""

    version: int
    ids: tuple[str, ...]


class Resumed(NamedTuple):
    """A task's row as it was before, and the rows beside it; `inbox`: what its acquisition delivers, None where it was
    not acquired."""

    rows: list[Row]
    inbox: tuple[str, ...] | None


class Resumes(Protocol):
    """What a store may offer besides: to acquire and load in one request.

    A task that was let go says what else its next acquisition needs to know (`Task.planned`), so that the store finds
    out by itself what that delivers, and whether there is anything to deliver: as `everstep.resuming` does, to the
    letter. What that leaves alone is only loaded.
    """

    async def resume(self, id: str, claim: Claim, beside: Beside | None = None) -> Resumed:
        """Acquire if that can be decided, and load.

        The task's row comes first; then those of `beside`, if the task still has that version, and of the inbox, or
        else the whole branch; then what it waits for in other origins. They are read after the claim and hold every
        write of the holder before. Raises StoreError; the claim may stand then.
        """
        ...


def resumer(store: Store) -> Resumes | None:
    """The store, if it can acquire and load in one request."""
    able: Any = store
    return able if hasattr(able, "resume") else None


class Wake(NamedTuple):
    """A wake-up: look at this record. `version` is the task's version when it was armed; a store behind it is not yet
    caught up (rule W2). Never a value, never an address."""

    id: str
    version: int = 0


class Waker(Protocol):
    """Durable, at least once, perhaps early, late, twice and out of order; methods raise WakerError and nothing else.

    `by_row` is True where the store's `due` column is itself the alarm clock (SQLite, Postgres): arming is then part of
    the commit, and `arm` and `send` only shorten the wait.
    """

    @property
    def by_row(self) -> bool: ...

    async def arm(self, wake: Wake, at: int) -> str | None:
        """Deliver `wake` at `at` (milliseconds) or soon after; returns a token for `disarm` where there is one."""
        ...

    async def disarm(self, token: str) -> None:
        """Take an armed wake-up back, if it is still there."""
        ...

    async def send(self, wake: Wake) -> None:
        """Deliver `wake` now."""
        ...
