"""Requests that wait for a promise: one look at the store for all of them together, however many they are.

The looks come quickly after somebody began to wait or something was settled here, and then more and more rarely. With
nobody waiting there are none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection

_FIRST = 0.02
_LAST = 0.4


class Waits:
    """Args:
    settled: of these ids, those that are settled, halted or gone; whatever it raises is tried again.
    """

    def __init__(self, settled: Callable[[Collection[str]], Awaitable[Collection[str]]]) -> None:
        self._settled = settled
        self._waiting: dict[str, list[asyncio.Event]] = {}
        self._kick = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self.rounds = 0

    async def until(self, id: str, seconds: float) -> None:
        """Return when the promise is worth a look, or when the time is over."""
        event = asyncio.Event()
        self._waiting.setdefault(id, []).append(event)
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll(), name="everstep waits")
        self._kick.set()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await event.wait()
        finally:
            others = self._waiting[id]
            others.remove(event)
            if not others:
                del self._waiting[id]
            if not self._waiting and self._poller is not None:
                self._poller.cancel()
                self._poller = None

    def kick(self) -> None:
        """Something was settled here: look at once."""
        self._kick.set()

    async def _poll(self) -> None:
        pause = _FIRST
        while True:
            if self._kick.is_set():
                self._kick.clear()
                pause = _FIRST
            self.rounds += 1
            with contextlib.suppress(Exception):
                for id in await self._settled(list(self._waiting)):
                    for event in self._waiting.get(id, ()):
                        event.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._kick.wait()
            pause = min(pause * 1.5, _LAST)
