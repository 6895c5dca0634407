"""Cron expressions: the next occurrence, by the `cronsim` library, in UTC or in a named time zone.

`CRON_TZ=Europe/Berlin 0 3 * * *` (or `TZ=`) counts in that zone's wall clock. Where clocks go forward, a daily job
whose time does not exist runs right after the gap, on that day; where they go back, it runs once. An hourly or more
frequent one runs at each of its instants.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any

from .clock import EPOCH, to_datetime, to_milliseconds
from .errors import InvalidArgument

_PREFIXES = ("CRON_TZ=", "TZ=")


def next_cron(cron: str, after: int) -> int:
    """The first occurrence strictly after an instant, both in milliseconds since 1970.

    Raises:
        InvalidArgument: the expression or its time zone is not valid, or it never occurs (in the next decades); or
            the library is not installed.
    """
    expression, zone = _parse(cron)
    start = to_datetime(after - after % 1000)
    try:
        found = next(_simulator()(expression, start.astimezone(zone)))
    except StopIteration:
        raise InvalidArgument(f"cron {cron!r} never occurs") from None
    return to_milliseconds(found.astimezone(UTC))


def check(cron: str) -> None:
    """Raise InvalidArgument unless the expression is valid."""
    next_cron(cron, to_milliseconds(EPOCH))


def _simulator() -> Any:
    try:
        from cronsim import CronSim
    except ImportError:
        raise InvalidArgument("cron: schedules need the cronsim library: pip install 'everstep[cron]'") from None
    return CronSim


@lru_cache(maxsize=128)
def _parse(cron: str) -> tuple[str, tzinfo]:
    expression, zone = cron.strip(), "UTC"
    for prefix in _PREFIXES:
        if expression.startswith(prefix):
            zone, _, expression = expression.removeprefix(prefix).partition(" ")
            break
    simulator = _simulator()
    try:
        simulator(expression.strip(), datetime(2000, 1, 1, tzinfo=UTC))
    except Exception as error:
        raise InvalidArgument(f"cron {cron!r} is not a valid expression: {error}") from None
    return expression.strip(), _zone(zone, cron)


def _zone(name: str, cron: str) -> tzinfo:
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except Exception:
        raise InvalidArgument(f"cron {cron!r}: there is no time zone {name!r}") from None
