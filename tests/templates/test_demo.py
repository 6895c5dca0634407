"""`make demo` proves what it claims, and would notice if it did not hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.components import requires_component

requires_component("chess", hint="pip install chess")

from tools import demo  # noqa: E402
from tools.demo import Execution, judge  # noqa: E402


@pytest.mark.parametrize("seed", [1])
def test_it_kills_twice_resumes_and_every_check_holds(tmp_path: Path, seed: int) -> None:
    done = subprocess.run(
        [sys.executable, "tools/demo.py", str(tmp_path / "demo"), "--seed", str(seed)],
        cwd=demo.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("killed by SIGKILL") == 2
    assert [int(one) for one in re.findall(r"^life (\d)", done.stdout, re.MULTILINE)] == [1, 2, 3]
    replayed = [int(one) for one in re.findall(r"(\d+) steps replayed", done.stdout)]
    assert 0 < replayed[0] < replayed[1]
    assert done.stdout.count("  yes  ") == 7
    assert "NO " not in done.stdout
    assert "0-1  checkmate" in done.stdout
    assert (tmp_path / "demo" / "demo.db").exists()


RAN = [Execution(1, "c.1"), Execution(1, "c.2"), Execution(2, "c.2"), Execution(2, "c.3"), Execution(3, "c.4")]
AFTER = [{"c.1": 1}, {"c.1": 1, "c.2": 2, "c.3": 3}]
END = {"c.1": 1, "c.2": 2, "c.3": 3, "c.4": 4}


def failing(ran: list[Execution], after: list[dict[str, int]], end: dict[str, int]) -> str:
    checks, _ = judge(ran, after, end)
    return "; ".join(check.says for check in checks if not check.holds)


def test_a_step_in_flight_at_a_kill_may_run_again_and_is_named() -> None:
    assert failing(RAN, AFTER, END) == ""
    assert judge(RAN, AFTER, END)[1] == ["c.2"]


def test_a_recorded_step_that_ran_again_is_noticed() -> None:
    assert failing([*RAN, Execution(3, "c.1")], AFTER, END) == "nothing that was recorded ran again (but for c.1)"


def test_a_step_that_ran_twice_in_one_life_is_noticed() -> None:
    assert failing([*RAN, Execution(3, "c.4")], AFTER, END) == "nothing ran twice in one life"


def test_a_step_that_is_recorded_and_never_ran_is_noticed() -> None:
    assert "skipped" in failing(RAN[:-1], AFTER, END)


def test_a_step_that_ran_and_is_not_recorded_is_noticed() -> None:
    assert "lost" in failing([*RAN, Execution(3, "c.5")], AFTER, END)


def test_a_recorded_value_that_changed_is_noticed() -> None:
    assert failing(RAN, AFTER, {**END, "c.3": 33}) == "no recorded value changed (but for c.3)"


def test_notifications_count_once_by_their_id_and_in_order() -> None:
    sent = [(f"countdown.{number}", text) for number, text in enumerate(["5", "4", "3", "2", "1", "Done"])]
    final = dict(sent)

    assert [check.holds for check in demo.check_countdown([sent[0], *sent], final)] == [True]
    assert [check.holds for check in demo.check_countdown(sent[1:], final)] == [False]
    assert [check.holds for check in demo.check_countdown([*sent, ("countdown.9", "2")], final)] == [False]


def test_the_moves_must_lead_to_the_board_that_was_published() -> None:
    fen = "rnbqkbnr/pppppppp/8/8/4P3/8/PPPP1PPP/RNBQKBNR b KQkq - 0 1"

    assert [check.holds for check in demo.check_game(["e2e4"], {"fen": fen}, 1)] == [True]
    assert [check.holds for check in demo.check_game(["d2d4"], {"fen": fen}, 1)] == [False]
    assert [check.holds for check in demo.check_game(["e2e4"], {"fen": fen}, 2)] == [False]
    assert [check.holds for check in demo.check_game(["e2e5"], {"fen": fen}, 1)] == [False]
