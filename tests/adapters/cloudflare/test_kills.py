"""SIGKILL at twenty moments: whatever workerd was doing, every run finishes, nothing is lost and nothing is doubled.

Each life starts runs of its own beside those that the lives before left behind, and is killed somewhere else.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from pathlib import Path
from urllib.error import URLError

import pytest

from .conftest import runs
from .worker import Worker

pytestmark = pytest.mark.xdist_group("workerd again")

MOMENTS = 20


def begin(worker: Worker, life: int) -> list[tuple[str, object]]:
    """Start what this life starts, and what comes of it."""
    started: list[tuple[str, object]] = []
    for workflow, args, value in (
        ("countdown", [3, 0.05], "counted down from 3"),
        ("fan", [4], [0, 1, 4, 9]),
        ("failing", [1], "attempt 2"),
        ("large", [400_000], 400_000),
    ):
        id = f"{workflow}-{life}"
        worker.post(f"/workflows/{workflow}", {"id": id, "args": args})
        started.append((id, value))
    return started


@pytest.mark.parametrize("steps", [None, 1], ids=["until blocked", "step by step"])
def test_every_run_survives(tmp_path: Path, steps: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(17)
    moments = [0.6 * n / MOMENTS for n in range(MOMENTS // 2)]
    rng.shuffle(moments)
    expected: list[tuple[str, object]] = []
    worker = runs(tmp_path, steps, blobs=True, start=False)
    for life, moment in enumerate(moments):
        with worker.start():
            expected += begin(worker, life)
            time.sleep(moment)
    with worker.start():
        for id, value in expected:
            assert worker.result(id) == value
        noted = Counter((id, text) for id, text in worker.get("/notes/"))
        for life in range(len(moments)):
            assert _once(worker, f"countdown-{life}.") == ["3", "2", "1", "Done"]
            assert sorted(_once(worker, f"fan-{life}.")) == [f"square {n}" for n in range(4)]
        counts = Counter(noted.values())
        with contextlib.suppress(URLError):
            assert worker.post("/cdn-cgi/handler/scheduled") == {"outcome": "ok"}
    with capsys.disabled():
        print(f"\n{len(moments)} kills: {len(expected)} runs finished; steps by how often they ran: {dict(counts)}")
    # A step under way at the moment of death runs again, and none more often than there were deaths in it.
    assert sum(times - 1 for times in noted.values()) <= 3 * len(moments)


def _once(worker: Worker, prefix: str) -> list[str]:
    """What the steps of a run did, a repetition of the same step left out; the order is that of the run."""
    return list(dict.fromkeys(text for _, text in worker.get(f"/notes/{prefix}")))


def test_system_3_killed_after_the_second_notification(tmp_path: Path) -> None:
    """N+1 notifications in order, none twice, and a journal with the ids it has everywhere."""
    worker = runs(tmp_path, start=False)
    with worker.start():
        worker.post("/workflows/countdown", {"id": "c5", "args": [5, 1.5]})
        until = time.monotonic() + 60
        while len(worker.get("/notes/c5.")) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.2)
    with worker.start():
        assert worker.result("c5") == "counted down from 5"
        assert worker.get("/notes/c5.") == [
            ["c5.1", "5"],
            ["c5.3", "4"],
            ["c5.5", "3"],
            ["c5.7", "2"],
            ["c5.9", "1"],
            ["c5.11", "Done"],
        ]
        journal = {
            child["id"]: (child["kind"], child["state"]) for child in worker.get("/promises/c5/tree")["children"]
        }
    kinds = ("timer", "step")
    assert journal == {f"c5.{n}": (kinds[n % 2], "resolved") for n in range(1, 12)}
