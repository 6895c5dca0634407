"""The PyPI package `resonate-sdk`, unmodified, on an interpreter of its own, against `everstep dev` on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.support import Dev, Worker, dev, python, sdks, typescript, until

pytestmark = pytest.mark.xdist_group("gateway-python")


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    sdks()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with dev(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def worker(server: Dev) -> Iterator[Worker]:
    with python(server, "p1") as running:
        yield running


def test_local_calls_are_recorded_and_never_repeated(worker: Worker) -> None:
    assert worker.run("l1", "local", "bob") == ["BOB!", "BOB!!"]
    assert worker.run("l1", "local", "bob") == ["BOB!", "BOB!!"]
    assert [note for note in worker.notes() if "shout" in note] == ["shout bob", "shout BOB!"]


def test_remote_calls_sleeps_and_recursion(worker: Worker) -> None:
    assert worker.rpc("r1", "remote", "ann", "py") == "got hello ann"
    assert worker.rpc("n1", "nap", 0.3) == "rested"
    assert worker.rpc("f1", "factorial", 4) == 24


def test_a_chain_of_detached_runs(worker: Worker) -> None:
    next = worker.rpc("c1", "chain", 2)
    while next != "end":
        assert next.startswith("c1")
        next = worker.tell("result", next)()


def test_a_person_approves(server: Dev, worker: Worker) -> None:
    answer = worker.tell("rpc", "a1", name="ask", args=["ship?"])
    until(lambda: any(note.startswith("mail ship?") for note in worker.notes()), worker)
    id = next(note for note in worker.notes() if note.startswith("mail ship?")).split()[-1]

    server.post(f"/promises/{id}/resolve", {"value": "yes"})

    assert answer() == "ship?: yes"


def test_a_schedule_fires_until_it_is_deleted(server: Dev, worker: Worker) -> None:
    worker.tell("schedule", "every", cron="* * * * * *", name="greet", args=["cron"])()
    until(lambda: "greet cron by p1" in worker.notes(), worker)
    worker.tell("unschedule", "every")()
    assert server.get("/schedules")["schedules"] == []


def test_two_workers_share_a_group_and_no_task_runs_twice(server: Dev, worker: Worker) -> None:
    with python(server, "p2"):
        answers = [worker.tell("rpc", f"s{n}", name="where", args=[n]) for n in range(20)]
        assert {answer() for answer in answers} == {"p1", "p2"}
    assert sorted(note.split()[1] for note in worker.notes() if note.startswith("where ")) == sorted(
        map(str, range(20))
    )


def test_a_worker_that_is_killed_is_replaced(server: Dev, worker: Worker) -> None:
    def ticks() -> list[str]:
        return [note.split()[1] for note in worker.notes() if note.startswith("tick")]

    with python(server, "k1", "kill", TTL="500", PAUSE="0.06") as first:
        answer = worker.tell("rpc", "k1", name="slow", args=[6], target="kill")
        until(lambda: len(ticks()) >= 3, worker)
        first.kill()
    before = ticks()
    with python(server, "k2", "kill"):
        assert answer() == 6
    assert not set(before[:-1]) & set(ticks()[len(before) :])
    assert set(ticks()) == {"0", "1", "2", "3", "4", "5"}


def test_ours_and_theirs_call_each_other(server: Dev, worker: Worker) -> None:
    ours = "everstep://shop"
    found = worker.rpc("x1", "across", "quote", ours, "book", 2)
    assert found == {"value": {"item": "book", "cents": 800}}
    assert worker.rpc("x2", "across", "strict", ours, "book") == {"error": "no book"}


def test_a_workflow_of_ours_calls_a_function_served_in_python(server: Dev, worker: Worker) -> None:
    server.post("/workflows/calls", {"id": "m1", "args": ["greet", "eve"], "kwargs": {"group": "py"}})
    assert server.settled("m1")["value"] == "hello eve"
    server.post("/workflows/catches", {"id": "m2", "args": ["refuse", "entry"], "kwargs": {"group": "py"}})
    assert server.settled("m2")["value"] == ["Failed", "no entry"]  # the SDK names no type


def test_three_languages_of_workers_in_one_run(server: Dev, worker: Worker, tmp_path: Path) -> None:
    with typescript(server, "t1"):
        found = worker.rpc("x3", "across", "across", "poll://any@ts", "quote", "everstep://shop", "pen")
    assert found == {"value": {"value": {"item": "pen", "cents": 300}}}
