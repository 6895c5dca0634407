"""How often a caller may ask: a bucket of requests for each, that fills up again at a steady rate."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

from everstep.clock import Clock
from everstep.errors import InvalidArgument

from .problems import Problem

_CALLERS = 10_000


class Rate(NamedTuple):
    """So many requests a second, and so many at once after a rest."""

    per_second: float
    burst: int


class Limiter:
    """Raises InvalidArgument for a rate that lets nobody pass."""

    def __init__(self, rate: Rate, clock: Clock) -> None:
        if not rate.per_second > 0 or rate.burst < 1:
            raise InvalidArgument(
                f"rate must let somebody pass: more than 0 a second and at least 1 at once, not {rate}"
            )
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, name: str) -> None:
        """Count a request of a caller. Raises Problem 429, saying when to come again."""
        now = self._clock.now()
        left, at = self._buckets.pop(name, (float(self._rate.burst), now))
        left = min(self._rate.burst, left + max(0, now - at) / 1000 * self._rate.per_second)
        allowed = left >= 1
        self._buckets[name] = (left - 1 if allowed else left, now)
        while len(self._buckets) > _CALLERS:
            self._buckets.popitem(last=False)
        if not allowed:
            seconds = math.ceil((1 - left) / self._rate.per_second)
            raise Problem(429, f"too many requests; try again in {seconds} s", headers={"retry-after": str(seconds)})
