"""The whole loop for real, and offline: functions-framework, Firestore's emulator, a queue that signs, repeats and
delivers twice. Systems 3 and 46 on this platform."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.cloud import firestore

from everstep.promise import State

from .loop import Loop

pytestmark = pytest.mark.xdist_group("firestore")

SHIFT = int(os.environ.get("EVERSTEP_FIRESTORE_SHIFT", "0"))
KILLS = tuple(SHIFT + at for at in (9, 23, 40, 58, 79, 101, 124, 148, 173, 199))
"""After how many calls to Firestore and Cloud Tasks the function's processes are killed."""


def executions(project: str) -> dict[str, int]:
    """How often each step ran, by its id."""
    return {one.id: one.get("times") for one in firestore.Client(project=project).collection("ran").stream()}


def play(loop: Loop) -> None:
    """Start everything, and see it end."""
    loop.start("countdown", "count", 5, 0.2)
    loop.start("chess", "series", 1, 0.05, 6)
    loop.start("approval", "ask")
    loop.start("flaky", "flaky")
    loop.start("fan", "fan", 25)

    def asked() -> bool:
        return loop.call("POST", "/promises/ask.1/resolve", {"value": "yes"})[0] == 200

    loop.until(asked)
    assert loop.result("count") == "5 4 3 2 1 done"
    assert loop.result("ask") == "answered yes"
    assert loop.result("flaky") == "mended"
    assert loop.result("fan") == sum(n * n for n in range(25))
    loop.until(lambda: len(games(loop)) >= 3)


def games(loop: Loop) -> list[str]:
    status, found = loop.call("GET", "/promises?state=resolved&prefix=series")
    ids = [view["id"] for view in found["promises"]] if status == 200 else []
    return [id for id in ids if id.startswith("series")]


@pytest.fixture(params=[None, 1], ids=["until blocked", "step by step"])
def loop(request: pytest.FixtureRequest, emulator: str, project: str, tmp_path: Path) -> Iterator[Loop]:
    made = Loop(emulator, project, tmp_path, steps=request.param, timeout=10)
    yield made
    made.close()


def test_everything_ends_in_both_ways_of_invocation(loop: Loop, project: str) -> None:
    play(loop)
    ran = executions(project)
    assert {id: times for id, times in ran.items() if id.startswith("count.")} == {
        f"count.{n}": 1 for n in (1, 3, 5, 7, 9, 11)
    }
    assert ran["flaky.1"] == 3
    assert loop.dispatcher.slowed == 0, "no answer slowed the queue down"
    assert loop.server.starts == 1
    replayed = replays(loop)
    whole = [replayed[game] for game in games(loop)[:3]]
    assert max(whole) <= 6 * 3 + 1, "a game replays its own moves and no other's"
    assert max(whole) - min(whole) <= 3


def replays(loop: Loop) -> Counter[str]:
    """The longest history that each run was acquired with."""
    longest: Counter[str] = Counter()
    for detail in loop.log():
        event = detail["everstep"]
        if event["event"] == "acquired":
            id = detail["everstep_id"]
            longest[id] = max(longest[id], event["replayed"])
    return longest


def test_killed_at_ten_calls_everything_ends_nevertheless(emulator: str, project: str, tmp_path: Path) -> None:
    loop = Loop(emulator, project, tmp_path, die_at=KILLS)
    try:
        play(loop)
        killed = (tmp_path / "killed").read_text().splitlines()
        assert len(killed) == len(KILLS)
        assert loop.server.starts > sum(number % 2 == 0 for number in KILLS)
        ran = executions(project)
        steps = {id: times for id, times in ran.items() if id.startswith("count.")}
        assert set(steps) == {f"count.{n}" for n in (1, 3, 5, 7, 9, 11)}
        assert sum(steps.values()) <= len(steps) + len(KILLS), "a step runs again only where a kill met it"
    finally:
        loop.close()


def test_a_stranger_cannot_wake_anything(emulator: str, project: str, tmp_path: Path) -> None:
    loop = Loop(emulator, project, tmp_path)
    try:
        loop.start("approval", "ask")
        for token in ("", "x.y.z", "t0ken", loop.keys.token("x@y", loop.url)):
            for path in ("/wake", "/sweep", "/events"):
                assert loop.call("POST", path, {"id": "ask", "version": 0}, token=token)[0] == 401
        assert loop.call("GET", "/promises/ask", token="other")[0] == 401
        view: Any = loop.until(lambda: loop.call("GET", "/promises/ask")[1])
        assert view["state"] == State.PENDING.value
    finally:
        loop.close()
