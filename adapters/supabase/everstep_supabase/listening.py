"""The waker of a worker: a process that works on plain Postgres on its own (`everstep dev`, `Runtime`).

One connection listens. What a worker makes due itself stays in the process, the others are told once for each burst.
What it was not told, because the connection was lost, it finds at the next due instant it knows of, or after `idle`
seconds; nothing polls faster than that.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg

from everstep.errors import PlatformError
from everstep.ports import Wake
from everstep.wakers.local import LocalWaker

if TYPE_CHECKING:
    from .store import PostgresStore

_AGAIN = 1.0


class ListeningWaker(LocalWaker):
    """Wake-ups of one event loop, and of every other that shares the database."""

    idle = 30.0

    def __init__(self, store: PostgresStore) -> None:
        super().__init__()
        self._store = store
        self._telling: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None

    async def send(self, wake: Wake) -> None:
        await super().send(wake)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def wait(self, seconds: float | None = None) -> bool:
        if self._listening is None or self._listening.done():
            self._listening = asyncio.get_running_loop().create_task(self._listen())
        return await super().wait(seconds)

    async def close(self) -> None:
        tasks = [task for task in (self._listening, self._telling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self) -> None:
        try:
            await self._store.poke("")
        except PlatformError:
            pass  # they look by themselves

    async def _listen(self) -> None:
        """Hear what is told. Whenever it begins to, it looks once, for what was told before."""
        while True:
            try:
                connection = await self._store.pool.connect(plain=True)
                try:
                    await connection.execute("listen everstep")
                    self.ring()
                    async for _ in connection.notifies():
                        self.ring()
                finally:
                    await connection.close()
            except (psycopg.Error, PlatformError):
                pass
            await asyncio.sleep(_AGAIN)
