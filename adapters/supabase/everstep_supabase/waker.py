"""The doorbell of Postgres. The due row is the alarm clock (rule W1); this only shortens the wait.

`send` tells whoever listens (a worker, by NOTIFY) and, where pg_net and a URL are set up, has the function called at
once. `arm` tells a listener of an instant that may be earlier than the one it sleeps until; where pg_cron looks every
second there is nobody to tell. A doorbell that fails is nobody's loss.
"""

from __future__ import annotations

from typing import Protocol

from everstep.errors import StoreError, WakerError
from everstep.ports import Wake


class Pokes(Protocol):
    """A store with a doorbell: PostgresStore and RpcStore."""

    async def poke(self, id: str) -> None: ...


class PostgresWaker:
    """Wake-ups of whoever works on this database.

    Args:
        store: whose doorbell it is.
        listeners: whether a worker sleeps until what it knows to be due next, so that it must hear of what is armed.
    """

    by_row = True

    def __init__(self, store: Pokes, *, listeners: bool = True) -> None:
        self._store = store
        self._listeners = listeners

    async def arm(self, wake: Wake, at: int) -> str | None:
        """Nothing to keep: the row of the commit that follows is the alarm. There is no token."""
        if self._listeners:
            await self.send(wake._replace(id=""))
        return None

    async def disarm(self, token: str) -> None:
        """Nothing to do: an instant at which no row is due costs one look."""

    async def send(self, wake: Wake) -> None:
        """Deliver at once. Raises WakerError, which changes nothing: the row is due, and is found by itself."""
        try:
            await self._store.poke(wake.id)
        except StoreError as error:
            raise WakerError(str(error)) from error
