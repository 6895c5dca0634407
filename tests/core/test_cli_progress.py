"""What `everstep run` says: plain lines in a pipe, and on a terminal a moving line that counts a wait down."""

from __future__ import annotations

import io
from typing import Any

from tests.components import requires_component

requires_component("rich", hint="pip install -e '.[test]'")

from rich.console import Console  # noqa: E402

from everstep.cli.progress import Progress  # noqa: E402
from everstep.clock import VirtualClock  # noqa: E402
from everstep.local import Event  # noqa: E402


def told(*events: tuple[str, str, dict[str, Any]], terminal: bool = False) -> tuple[list[str], Progress, VirtualClock]:
    """The lines that events lead to, a second apart."""
    clock, out = VirtualClock(), io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200, soft_wrap=True, color_system=None)
    progress = Progress(console, clock.now)
    for kind, id, detail in events:
        progress(Event(kind, id, clock.now(), detail))
        clock.advance(1000)
    return out.getvalue().splitlines(), progress, clock


def test_it_tells_what_was_replayed_what_ran_and_what_is_waited_for() -> None:
    until = VirtualClock().now() + 5000
    lines, _, _ = told(
        ("acquired", "c1", {"replayed": 3}),
        ("step", "c1.4", {"name": "notify", "attempt": 2}),
        ("delivered", "c1.4", {"state": "resolved"}),
        ("suspended", "c1", {"waiting_for": ["c1.5"], "until": until}),
        ("suspended", "c1", {"waiting_for": ["c1.5"], "until": until}),
        ("acquired", "c1", {"replayed": 5}),
        ("suspended", "c1", {"waiting_for": ["a", "b", "c", "d"], "until": None}),
        ("settled", "c1", {"state": "resolved"}),
    )

    assert lines[:2] == [
        "▶ c1 resumes: 3 recorded results replayed, none of it ran again",
        "✓ c1.4 notify  1.0 s, attempt 2",
    ]
    assert lines[2].startswith("◌ c1 waits for c1.5 until ")
    assert lines[2].endswith(", 2.0 s")
    assert lines[3:] == ["◌ c1 waits for a, b, c and 1 more"]


def test_trouble_is_told() -> None:
    lines, _, _ = told(
        ("acquired", "c1", {"replayed": 0}),
        ("step", "c1.1", {"name": "charge", "attempt": 1}),
        ("failed", "c1.1", {"name": "charge", "attempt": 1, "error": "ValueError: no", "delay": 1500}),
        ("step", "c1.1", {"name": "charge", "attempt": 2}),
        ("delivered", "c1.1", {"state": "rejected"}),
        ("put off", "c1", {"reason": "busy", "delay": 200}),
        ("trouble", "c1", {"error": "disk\x1b[2J"}),
        ("continued", "c1", {"generation": 2}),
        ("lost", "c1", {}),
        ("halted", "c1", {"reason": "died 5 times"}),
        ("unheard of", "c1", {}),
    )

    assert lines == [
        "▶ c1 starts",
        "✗ c1.1 charge: attempt 1 failed: ValueError: no; again in 1.5 s",
        "✗ c1.1 charge  1.0 s, attempt 2",
        "↻ c1 again in 200 ms: busy",
        "… c1: disk\\x1b[2J; trying again",
        "↻ c1 goes on as generation 2",
        "… c1 is worked on by another process",
        "■ c1 halted: died 5 times",
    ]


def test_on_a_terminal_a_short_wait_is_a_line_that_counts_down() -> None:
    clock, out = VirtualClock(), io.StringIO()
    console = Console(file=out, force_terminal=True, width=200, soft_wrap=True, color_system=None)
    with Progress(console, clock.now) as progress:
        progress(Event("suspended", "c1", 0, {"waiting_for": ["c1.2"], "until": clock.now() + 9000}))
        assert "◌" not in out.getvalue()
        status = progress._status
        assert status is not None
        console.print(status.status)
        clock.advance(4000)
        console.print(status.status)

    lines = [line for line in out.getvalue().splitlines() if "waits for c1.2 until" in line]
    assert any(line.endswith(", 9.0 s") for line in lines)
    assert any(line.endswith(", 5.0 s") for line in lines)
    assert progress._status is None
