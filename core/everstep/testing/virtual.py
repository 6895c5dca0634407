"""An event loop on virtual time: what a simulated platform runs its instances on.

It has no selector and waits for nothing. `drain` runs whatever is ready; time is the world's, and moves only when the
world says so. A step may sleep, take a timeout or use a thread (which runs at once); a socket is refused.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from asyncio import events
from collections.abc import Callable
from contextvars import Context as ContextVars
from typing import Any

from everstep.clock import VirtualClock
from everstep.errors import RealIOError
from everstep.loop import Loop


class _Host:
    """The engine's loop asks its host for time; here the clock answers, and timers never reach it."""

    now_ms = 0

    def arm_timer(self, when: float) -> str:
        raise AssertionError(when)

    def disarm_timer(self, key: str) -> None:
        raise AssertionError(key)


class VirtualLoop(Loop):
    """Runs instances, clients and steps on `clock`."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_Host())
        self._clock = clock
        self._timers: list[tuple[int, int, events.TimerHandle]] = []
        self._armed = 0

    def time(self) -> float:
        return self._clock.now() / 1000

    def refuse(self, error: BaseException) -> BaseException:
        return RealIOError(
            f"{str(error).partition('(')[0]}() in a simulation: give the step a stand-in that does no I/O"
        )

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: ContextVars | None = None
    ) -> events.TimerHandle:
        handle = events.TimerHandle(when, callback, args, self, context)
        self._armed += 1
        heapq.heappush(self._timers, (math.ceil(when * 1000 - 1e-3), self._armed, handle))
        return handle

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        pass

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: ContextVars | None = None
    ) -> events.Handle:
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """A thread would bring real time in: the call is made here and now."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def next_at(self) -> int | None:
        """The earliest instant (milliseconds) somebody sleeps until."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def wake(self) -> None:
        """Make ready whoever slept until now."""
        now = self._clock.now()
        timers = self._timers
        while timers and timers[0][0] <= now:
            handle = heapq.heappop(timers)[2]
            if not handle.cancelled():
                self.ready.append(handle)
