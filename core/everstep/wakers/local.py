"""The embedded waker: the store's `due` column is the alarm clock, and this only shortens the wait (rule W1).

Arming is part of the commit that writes the row. What is kept here may be lost at any time: a loop that asks the store
for due rows finds everything again. No thread, no timer: the loop that takes wake-ups decides how long it waits.
"""

from __future__ import annotations

import asyncio
import heapq

from everstep.ports import Wake


class LocalWaker:
    """Wake-ups of one event loop."""

    by_row = True
    idle = 0.5
    """Seconds after which its loop looks at the store though nobody rang: others may share it, and tell nobody."""

    def __init__(self) -> None:
        self._sent: dict[Wake, None] = {}
        self._armed: list[int] = []
        self._poked = asyncio.Event()

    async def arm(self, wake: Wake, at: int) -> str | None:
        """Remember the instant (milliseconds), so that the loop does not sleep past it. There is nothing to disarm."""
        if not self._armed or at < self._armed[0]:
            self._poked.set()
        heapq.heappush(self._armed, at)
        return None

    async def disarm(self, token: str) -> None:
        """Nothing to do: an instant at which no row is due costs one look."""

    async def send(self, wake: Wake) -> None:
        """Deliver at once."""
        self._sent[wake] = None
        self._poked.set()

    def ring(self) -> None:
        """Let the loop look again."""
        self._poked.set()

    def take(self, now: int) -> list[Wake]:
        """Everything sent and not taken yet; forgets the instants up to `now`, whose rows the store will name."""
        while self._armed and self._armed[0] <= now:
            heapq.heappop(self._armed)
        sent = list(self._sent)
        self._sent.clear()
        self._poked.clear()
        return sent

    def next_at(self) -> int | None:
        """The earliest armed instant not yet taken, in milliseconds."""
        return self._armed[0] if self._armed else None

    async def close(self) -> None:
        """Nothing to release."""

    async def wait(self, seconds: float | None = None) -> bool:
        """Sleep until poked by a send or an earlier alarm, or for so many seconds. True if poked."""
        if seconds is None:
            return await self._poked.wait()
        try:
            async with asyncio.timeout(seconds):
                return await self._poked.wait()
        except TimeoutError:
            return False
