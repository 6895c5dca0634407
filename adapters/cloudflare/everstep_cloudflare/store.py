"""The store: an object for each origin, and an index over them.

Inside an object its own origin's rows are at hand, and everything else is a call to another object. Outside of them
(the Worker that answers HTTP, queues and crons) everything is a call. Both are the same class.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from everstep.blobs import Blobs
from everstep.codec import Codec
from everstep.errors import StoreError, WakerError
from everstep.ids import origin_of
from everstep.ports import Commit, Due, Page, Query, Refused, Wake
from everstep.rows import Row

from .home import Home
from .index import ordered
from .peers import Peers, all_of


class DurableObjectStore:
    """Rows in Durable Objects.

    Args:
        peers: the other objects.
        home: the origin whose object this is; None outside of every object.
        blobs: where payloads above the limit of a row go.
    """

    single_writer = True
    folds = False
    """Removing a row is billed as writing one: folding a history would double what its steps cost."""

    def __init__(self, peers: Peers, home: Home | None = None, *, blobs: Blobs | None = None) -> None:
        self.peers = peers
        self._home = home
        self._blobs = blobs
        self.rung: set[str] = set()

    def codec(self) -> Codec:
        """How values are stored unless the App says otherwise."""
        return Codec(blobs=self._blobs)

    def at_home(self, origin: str) -> Home | None:
        return self._home if self._home is not None and self._home.origin == origin else None

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        parts = ordered(ids)
        found: list[Row] = []
        elsewhere = []
        for origin, wanted in parts.items():
            home = self.at_home(origin)
            if home is not None:
                found += home.rows.load(wanted)
            else:
                elsewhere.append(self.peers.load(origin, wanted))
        if elsewhere:
            for rows in await all_of(elsewhere):
                found += rows
        return {row.id: row for row in found}

    async def branch(self, id: str) -> list[Row]:
        home = self.at_home(origin_of(id))
        if home is not None:
            return home.rows.branch(id)
        return await self.peers.branch(origin_of(id), id)

    async def commit(self, commit: Commit) -> Refused | None:
        home = self.at_home(commit.origin)
        refused = await (home.commit(commit) if home is not None else self.peers.commit(commit))
        if refused is None and home is None:
            self.rung.update([put.row.id for put in commit.puts if put.row.due is not None])
        return refused

    async def due(self, now: int, limit: int) -> list[Due]:
        return await self.peers.due_anywhere(now, limit)

    async def find(self, query: Query) -> Page:
        return await self.peers.find_anywhere(query)

    async def delete(self, origin: str) -> int:
        home = self.at_home(origin)
        return await (home.delete() if home is not None else self.peers.delete(origin))

    async def close(self) -> None:
        """Nothing to release: objects come and go by themselves."""


class AlarmWaker:
    """Alarms as the alarm clock (`by_row`): arming is part of the commit, in the object whose rows are written.

    What `send` is told is looked at now; a row just committed elsewhere has rung there already.
    """

    by_row = True

    def __init__(self, store: DurableObjectStore, ring: Callable[[Wake], Awaitable[None]] | None = None) -> None:
        self._store = store
        self._ring = ring

    async def arm(self, wake: Wake, at: int) -> str | None:
        """Nothing to do: the row's own commit set the alarm (rule W9)."""
        return None

    async def disarm(self, token: str) -> None:
        """Nothing to do: an alarm that finds nothing due sets the next one."""

    async def send(self, wake: Wake) -> None:
        """Have an object look at once. Raises WakerError."""
        if wake.id in self._store.rung:
            self._store.rung.discard(wake.id)
            return
        origin = origin_of(wake.id)
        try:
            if self._ring is not None and self._store.at_home(origin) is not None:
                await self._ring(wake)
            else:
                await self._store.peers.wake(origin, wake)
        except StoreError as error:
            raise WakerError(str(error)) from error
