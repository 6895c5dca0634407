"""Crons: strictly after, in a zone's wall clock, right where the clocks change, and clear when they are wrong."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstep.clock import to_datetime, to_milliseconds
from everstep.cron import check, next_cron
from everstep.errors import InvalidArgument


def runs(cron: str, after: str, count: int) -> list[str]:
    at = to_milliseconds(datetime.fromisoformat(after).replace(tzinfo=UTC))
    found = []
    for _ in range(count):
        at = next_cron(cron, at)
        found.append(to_datetime(at).strftime("%Y-%m-%d %H:%M:%S"))
    return found


def test_utc_by_default() -> None:
    assert runs("30 3 * * *", "2026-03-28 03:30", 2) == ["2026-03-29 03:30:00", "2026-03-30 03:30:00"]


@pytest.mark.parametrize("prefix", ["CRON_TZ=", "TZ="])
def test_in_a_named_zone(prefix: str) -> None:
    assert runs(f"{prefix}Asia/Tokyo 0 9 * * 1", "2026-01-01 00:00", 1) == ["2026-01-05 00:00:00"]


def test_where_clocks_go_forward_a_daily_job_runs_right_after_the_gap() -> None:
    assert runs("CRON_TZ=Europe/Berlin 30 2 * * *", "2026-03-27 12:00", 3) == [
        "2026-03-28 01:30:00",
        "2026-03-29 01:00:00",
        "2026-03-30 00:30:00",
    ]


def test_where_clocks_go_back_a_daily_job_runs_once() -> None:
    assert runs("CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-23 12:00", 3) == [
        "2026-10-24 00:30:00",
        "2026-10-25 00:30:00",
        "2026-10-26 01:30:00",
    ]


def test_an_hourly_job_runs_every_hour_there_is() -> None:
    assert runs("CRON_TZ=Europe/Berlin 30 * * * *", "2026-03-28 23:00", 3) == [
        "2026-03-28 23:30:00",
        "2026-03-29 00:30:00",
        "2026-03-29 01:30:00",
    ]
    assert runs("CRON_TZ=Europe/Berlin 30 * * * *", "2026-10-24 23:00", 4) == [
        "2026-10-24 23:30:00",
        "2026-10-25 00:30:00",
        "2026-10-25 01:30:00",
        "2026-10-25 02:30:00",
    ]


def test_six_fields_have_seconds() -> None:
    assert runs("*/20 * * * * *", "2026-01-01 00:00:01", 2) == ["2026-01-01 00:00:20", "2026-01-01 00:00:40"]


@pytest.mark.parametrize(("after", "expected"), [(999, 1000), (1000, 2000), (1001, 2000), (1999, 2000)])
def test_not_one_is_skipped_between_full_seconds(after: int, expected: int) -> None:
    assert next_cron("* * * * * *", after) == expected


@given(
    st.sampled_from(["* * * * *", "*/7 3 * * *", "* * * * * *", "CRON_TZ=Europe/Berlin 30 2 * * *", "0 0 29 2 *"]),
    st.integers(0, 4_000_000_000_000),
)
def test_strictly_after(cron: str, after: int) -> None:
    assert next_cron(cron, after) > after


@pytest.mark.parametrize(
    ("cron", "problem"),
    [
        ("", "not a valid expression"),
        ("61 * * * *", "not a valid expression: Bad minute"),
        ("* * * *", "not a valid expression: Wrong number of fields"),
        ("0 0 30 2 *", "not a valid expression"),
        ("CRON_TZ=Nowhere/City * * * * *", "there is no time zone 'Nowhere/City'"),
        ("TZ=../../etc/passwd * * * * *", "there is no time zone"),
        ("TZ= * * * * *", "there is no time zone ''"),
        ("CRON_TZ=UTC", "not a valid expression"),
    ],
)
def test_what_is_wrong_is_said(cron: str, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^cron") as caught:
        check(cron)

    assert problem in str(caught.value)


def test_without_the_library_the_extra_is_named() -> None:
    code = """
import sys
sys.modules["cronsim"] = None
from everstep.cron import next_cron
try:
    next_cron("* * * * *", 0)
except ValueError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == (
        "InvalidArgument cron: schedules need the cronsim library: pip install 'everstep[cron]'"
    )


def test_importing_the_service_loads_no_calendar() -> None:
    code = "import everstep.service, everstep.cron, sys; print('cronsim' in sys.modules, 'zoneinfo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False"]
