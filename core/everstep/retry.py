"""Retry policies. The policy is pure arithmetic; the attempt count is durable and belongs to the driver."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InvalidArgument


@dataclass(frozen=True)
class Retry:
    """How a failed step is tried again.

    Args:
        attempts: how often the step runs at most, the first run included; None for ever.
        first: seconds before the second attempt.
        factor: what each further wait is multiplied by.
        cap: the longest wait, in seconds.
        give_up_on: exceptions that no further attempt can mend.

    Raises:
        InvalidArgument: a value is outside its range.
    """

    attempts: int | None = 5
    first: float = 0.5
    factor: float = 2.0
    cap: float = 60.0
    give_up_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if self.attempts is not None and (not isinstance(self.attempts, int) or self.attempts < 1):
            raise InvalidArgument(f"Retry(attempts={self.attempts!r}): at least 1, or None for ever")
        for name in ("first", "factor", "cap"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise InvalidArgument(f"Retry({name}={value!r}): a finite number, not negative")
        if not isinstance(self.give_up_on, tuple):
            object.__setattr__(self, "give_up_on", tuple(self.give_up_on))

    def delay_after(self, attempt: int, error: BaseException) -> int | None:
        """Milliseconds to wait after attempt number `attempt` (from 1) failed with `error`; None to give up."""
        if not isinstance(error, Exception) or isinstance(error, self.give_up_on):
            return None
        if self.attempts is not None and attempt >= self.attempts:
            return None
        exponent = min(attempt - 1, 64)  # beyond it every factor above 1 has long met the cap
        return round(min(self.cap, self.first * self.factor**exponent) * 1000)


NEVER_RETRY = Retry(attempts=1)
