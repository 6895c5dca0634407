"""A function platform in miniature over a real Postgres: a virtual clock, and instances that die at a database call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from everstep import App, Client
from everstep.clock import VirtualClock
from everstep.driver import Driver
from everstep.errors import ControlFlow
from everstep.ports import Commit, Refused, Wake
from everstep_supabase.connections import Connection
from everstep_supabase.store import PostgresStore

T = TypeVar("T")


class Died(ControlFlow):
    """The process is gone; nothing of it runs any more."""


class Mortal(PostgresStore):
    """Dies at its n-th database call, before or after it: `at` is 2n, or 2n + 1."""

    def __init__(self, url: str, at: int | None = None) -> None:
        super().__init__(url)
        self.calls = 0
        self.at = at
        self.dead = False

    async def _on_connection(self, work: Callable[[Connection], Awaitable[T]], *, writing: bool) -> T:
        number, self.calls = self.calls, self.calls + 1
        self._die(2 * number)
        result = await super()._on_connection(work, writing=writing)
        self._die(2 * number + 1)
        return result

    async def _with_rows(self, connection: Connection, commit: Commit) -> Refused | None:
        number, self.calls = self.calls, self.calls + 1
        try:
            self._die(2 * number)
        except Died:
            await connection.close()  # the server notices that its client is gone
            raise
        result = await super()._with_rows(connection, commit)
        self._die(2 * number + 1)
        return result

    def _die(self, point: int) -> None:
        if self.at == point:
            self.dead = True
        if self.dead:
            raise Died


class Deaf:
    """The due rows are the truth; this bell does not ring."""

    by_row = True

    async def arm(self, wake: Wake, at: int) -> str | None:
        return None

    async def disarm(self, token: str) -> None: ...

    async def send(self, wake: Wake) -> None: ...


class Platform:
    """Delivers what is due to one instance at a time; after a death, to a new one.

    Args:
        at: where the first instance dies; None: nowhere.
        cache: how many suspended bodies an instance keeps; 0 replays always.
    """

    def __init__(self, app: App, dsn: str, at: int | None = None, **options: Any) -> None:
        self.app, self.dsn, self.options = app, dsn, options
        self.clock = VirtualClock()
        self.instances = 0
        self.client = Client(PostgresStore(dsn), Deaf(), app=app, clock=self.clock)
        self.store = Mortal(dsn, at)
        self.driver = self._instance()

    def _instance(self) -> Driver:
        self.instances += 1
        return Driver(self.app, self.store, Deaf(), self.clock, pid=f"i{self.instances}", **self.options)

    async def deliver(self, id: str) -> None:
        try:
            await self.driver.deliver(Wake(id))
        except Died:
            self.driver.cold()
            await self.store.close()
            self.store = Mortal(self.dsn)
            self.driver = self._instance()

    async def until_settled(self, *ids: str, act: Callable[[Platform], Awaitable[None]] | None = None) -> None:
        """Deliver what is due, and let time pass to what is due next, until these runs are settled."""
        for _ in range(500):
            if not any([await self.client.handle(id).status() == "pending" for id in ids]):
                return
            due = await self.client.store.due(2**62, 20)
            now = [one.id for one in due if one.due <= self.clock.now()]
            for id in now:
                await self.deliver(id)
            if not now:
                if act is not None:
                    await act(self)
                if due:
                    self.clock.set(max(self.clock.now(), due[0].due))
        raise AssertionError(f"not settled: {await self.client.store.due(2**62, 20)}")

    async def close(self) -> None:
        self.driver.cold()
        await self.store.close()
        await self.client.close()
