"""The npm package `@resonatehq/sdk`, unmodified, against `everstep dev` on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.support import Dev, Failed, Worker, dev, sdks, typescript, until

pytestmark = pytest.mark.xdist_group("gateway-typescript")
TS = "poll://any@ts"


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    sdks()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with dev(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def worker(server: Dev) -> Iterator[Worker]:
    with typescript(server, "w1") as running:
        yield running


def test_local_calls_are_recorded_and_never_repeated(worker: Worker) -> None:
    first = worker.run("l1", "local", "bob")

    assert first == {"first": "BOB!", "second": "BOB!!"}
    assert worker.run("l1", "local", "bob") == first
    assert [note for note in worker.notes() if "shout" in note] == ["shout bob", "shout BOB!"]


def test_remote_calls_go_to_the_group_by_name(worker: Worker) -> None:
    assert worker.rpc("r1", "remote", "ann", "ts", target="ts") == "got hello ann"


def test_a_sleep_sleeps(worker: Worker) -> None:
    assert worker.rpc("n1", "nap", 300, target="ts") is True


def test_recursion_by_remote_calls(worker: Worker) -> None:
    assert worker.rpc("f1", "factorial", 5, target="ts") == 120


def test_a_chain_of_detached_runs(server: Dev, worker: Worker) -> None:
    next = worker.rpc("c1", "chain", 2, target="ts")
    while next != "end":
        assert "." not in next
        assert next.startswith("c1")
        next = worker.tell("result", next)()


def test_a_person_approves(server: Dev, worker: Worker) -> None:
    answer = worker.tell("rpc", "a1", name="ask", args=["ship?"], target="ts")
    until(lambda: any(note.startswith("mail ship?") for note in worker.notes()), worker)
    id = next(note for note in worker.notes() if note.startswith("mail ship?")).split()[-1]
    assert server.get(f"/promises/{id}")["state"] == "pending"

    server.post(f"/promises/{id}/resolve", {"value": "yes"})

    assert answer() == "ship?: yes"


def test_a_schedule_fires_until_it_is_deleted(server: Dev, worker: Worker) -> None:
    worker.tell("schedule", "every", cron="* * * * * *", name="greet", args=["cron"])()
    with typescript(server, "d1", "default"):
        until(lambda: "greet cron by d1" in worker.notes(), worker)
    assert [one["id"] for one in server.get("/schedules")["schedules"]] == ["every"]

    worker.tell("unschedule", "every")()

    assert server.get("/schedules")["schedules"] == []
    assert server.ask("schedule.get", id="every")["head"]["status"] == 404


def test_a_failure_is_an_error_elsewhere(worker: Worker) -> None:
    with pytest.raises(Failed, match="no luck"):
        worker.rpc("e1", "refuse", "luck", target="ts")


def test_two_workers_share_a_group_and_no_task_runs_twice(server: Dev, worker: Worker) -> None:
    with typescript(server, "w2"):
        answers = [worker.tell("rpc", f"s{n}", name="where", args=[n], target="ts") for n in range(30)]
        assert {answer() for answer in answers} == {"w1", "w2"}
    ran = sorted(note.split()[1] for note in worker.notes() if note.startswith("where "))
    assert ran == sorted(str(n) for n in range(30))


def test_a_worker_that_is_killed_is_replaced(server: Dev, worker: Worker) -> None:
    def ticks() -> list[str]:
        return [note for note in worker.notes() if note.startswith("tick")]

    with typescript(server, "k1", "kill", TTL="500", PAUSE="60") as first:
        answer = worker.tell("rpc", "k1", name="slow", args=[6], target="kill")
        until(lambda: len(ticks()) >= 3, worker)
        first.kill()
    before = ticks()
    with typescript(server, "k2", "kill", PAUSE="0"):
        assert answer() == 6
    again = [note.split()[1] for note in ticks()[len(before) :]]
    finished = {note.split()[1] for note in before[:-1]}  # the last one was under way when its worker died
    assert not finished & set(again)
    assert {note.split()[1] for note in ticks()} == {"0", "1", "2", "3", "4", "5"}


def test_a_server_that_is_killed_and_started_again_goes_on(tmp_path: Path) -> None:
    with dev(tmp_path) as server, typescript(server, "w1", PAUSE="40", TTL="1000") as worker:
        answer = worker.tell("rpc", "s1", name="slow", args=[5], target="ts")
        until(lambda: len(worker.notes()) >= 2, worker)
        server.kill()
        server.start()
        assert server.settled("s1")["value"] == 5
        assert answer() == 5


def test_a_workflow_of_ours_calls_a_function_served_in_typescript(server: Dev, worker: Worker) -> None:
    server.post("/workflows/calls", {"id": "m1", "args": ["greet", "eve"]})
    assert server.settled("m1")["value"] == "hello eve"
    server.post("/workflows/calls", {"id": "m2", "args": ["nothing"]})
    assert server.settled("m2")["state"] == "resolved"
    server.post("/workflows/catches", {"id": "m3", "args": ["refuse", "entry"]})
    assert server.settled("m3")["value"] == ["RangeError", "no entry"]


def test_a_workflow_of_ours_fans_out_to_typescript(server: Dev, worker: Worker) -> None:
    server.post("/workflows/fan", {"id": "m4", "args": [12]})
    assert server.settled("m4")["value"] == [f"hello {n}" for n in range(12)]


def test_a_typescript_workflow_calls_one_of_ours(server: Dev, worker: Worker) -> None:
    ours = "everstep://shop"
    assert worker.rpc("x1", "across", "quote", ours, "book", 2, target="ts") == {
        "value": {"item": "book", "cents": 800}
    }
    failed = {"error": True, "name": "LookupError", "message": "no book"}
    assert worker.rpc("x2", "across", "strict", ours, "book", target="ts") == failed
    assert worker.rpc("x3", "quote", "pen", target=ours) == {"item": "pen", "cents": 300}


def test_the_sdks_async_engine(server: Dev) -> None:
    with typescript(server, "y1", "newer", program="worker_async.mjs") as worker:
        assert worker.run("y-l", "local", "bob") == ["BOB!", "BOBS!"]
        assert worker.rpc("y-f", "factorial", 4) == 24
        answer = worker.tell("rpc", "y-a", name="ask", args=["go?"])
        until(lambda: any(note.startswith("mail go?") for note in worker.notes()), worker)
        id = next(note for note in worker.notes() if note.startswith("mail go?")).split()[-1]
        server.post(f"/promises/{id}/resolve", {"value": "yes"})
        assert answer() == "go?: yes"
        assert worker.rpc("y-x", "across", "quote", "everstep://shop", "pen") == {"item": "pen", "cents": 300}


def test_everything_is_at_rest_afterwards(server: Dev, worker: Worker) -> None:
    left = server.ask("promise.search", state="pending")["data"]["promises"]
    assert [one["id"] for one in left if not one["id"].startswith("every-")] == []
