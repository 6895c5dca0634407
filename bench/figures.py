"""A figure and its budget. A time is never one: it is a ratio to a floor that was measured in the same run."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Scale:
    """How much is measured. `rounds` is how often a floor and what stands on it take turns."""

    name: str
    rounds: int
    steps: int
    histories: tuple[int, ...]
    warm: tuple[int, ...]
    resumes: int
    sleepers: int
    imports: int


FULL = Scale("full", 9, 1_000, (100, 1_000, 10_000, 100_000), (10, 1_000, 100_000), 200, 1_000_000, 25)
QUICK = Scale("quick", 5, 1_000, (100, 1_000, 10_000), (10, 1_000, 10_000), 100, 20_000, 7)
TINY = Scale("tiny", 2, 20, (10, 50), (2, 10), 4, 1_200, 1)


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        row: of the table of costs.
        name: unique; what the last run's figure is found by.
        budget: the bound, or None for what is only told.
        least: the bound is a lower one.
        applies: False where the budget's own condition does not hold; `note` says why.
    """

    row: str
    name: str
    measured: float
    unit: str = "times"
    budget: float | None = None
    least: bool = False
    applies: bool = True
    note: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def within(self) -> bool | None:
        """Whether it is within its budget; None where there is none that applies."""
        if self.budget is None or not self.applies:
            return None
        return self.measured >= self.budget if self.least else self.measured <= self.budget

    def as_json(self) -> dict[str, Any]:
        data = {**asdict(self), "within": self.within}
        data["measured"] = round(self.measured, 4)
        return data


Timed = Callable[[int], float]
"""A slice of work: given its number, how long one unit of it took, in microseconds."""


def in_turns(rounds: int, subjects: dict[str, Timed]) -> dict[str, list[float]]:
    """Let subjects take turns, the order reversed every other round, so that all of them meet the same machine."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds):
        names = list(subjects)
        for name in names if number % 2 == 0 else reversed(names):
            gc.collect()
            found[name].append(subjects[name](number))
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios of slices that were neighbours: what slows a machine for a while slows both."""
    return statistics.median(one / other for one, other in zip(above, below, strict=True))


class Stopwatch:
    """Microseconds for each of `units`; `cpu` counts only what this process itself spent."""

    def __init__(self, units: int, *, cpu: bool) -> None:
        self._clock = time.process_time if cpu else time.perf_counter
        self._units = units
        self.micros = 0.0

    def __enter__(self) -> Stopwatch:
        self._began = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        self.micros = (self._clock() - self._began) / self._units * 1e6
