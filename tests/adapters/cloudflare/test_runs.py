"""Whole runs in real workerd: both ways of invoking, an object in trouble, and what a run costs in rows."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from urllib.parse import quote

import pytest

from everstep.clock import NEVER
from everstep.protocol import VERSION

from .worker import Worker

pytestmark = pytest.mark.xdist_group("workerd")


@pytest.fixture(params=["worker", "step_by_step"])
def either(request: pytest.FixtureRequest) -> Worker:
    """The Worker in both invocation modes."""
    found: Worker = request.getfixturevalue(request.param)
    return found


def start(worker: Worker, workflow: str, id: str, *args: object) -> None:
    worker.post(f"/workflows/{workflow}", {"id": id, "args": list(args)})


def notes(worker: Worker, prefix: str) -> list[str]:
    return [text for _, text in worker.get(f"/notes/{quote(prefix, safe='')}")]


def suspended(worker: Worker, id: str) -> None:
    """Wait until a run waits."""
    until = time.monotonic() + 30
    while worker.get(f"/promises/{id}")["task"] != "suspended" and time.monotonic() < until:
        time.sleep(0.05)


def test_a_countdown_of_five(either: Worker) -> None:
    start(either, "countdown", "c5", 5)

    assert either.result("c5") == "counted down from 5"
    assert notes(either, "c5.") == ["5", "4", "3", "2", "1", "Done"]
    start(either, "countdown", "c5", 5)
    assert len(notes(either, "c5.")) == 6


def test_an_approval_waits_for_a_person(either: Worker) -> None:
    start(either, "approval", "ask")
    suspended(either, "ask")
    either.post("/promises/ask.1/resolve", {"value": "yes"})

    assert either.result("ask") == "answered yes"
    assert notes(either, "ask.") == ["asked ask.1"]


def test_a_failing_step_is_tried_again_by_its_policy(either: Worker) -> None:
    start(either, "failing", "f2", 2)
    start(either, "failing", "f9", 9)

    assert either.result("f2") == "attempt 3"
    assert notes(either, "f2.") == ["attempt 1", "attempt 2", "attempt 3"]
    view = either.get("/promises/f9?wait=30")
    assert (view["state"], view["error"]["type"]) == ("rejected", "ValueError")


def test_a_fan_out_of_twenty_five(either: Worker) -> None:
    start(either, "fan", "wide", 25)

    assert either.result("wide") == [n * n for n in range(25)]
    assert sorted(notes(either, "wide.")) == sorted(f"square {n}" for n in range(25))


def test_shared_work_is_waited_for_across_objects(either: Worker) -> None:
    start(either, "shared", "top", 6)

    assert either.result("top") == 720
    assert sorted(notes(either, "factorial-")) == ["factorial 2", "factorial 3", "factorial 4", "factorial 5"]


def test_system_36_an_endless_monitor_replays_one_round(either: Worker) -> None:
    """Each round is a root of its own: its object holds a handful of rows, however many rounds there were."""
    start(either, "monitor", "watch", 1, 12)
    until = time.monotonic() + 60
    while len(notes(either, "watch")) < 12 and time.monotonic() < until:
        time.sleep(0.1)

    assert notes(either, "watch") == [f"round {n}" for n in range(1, 13)]
    found = either.get("/promises?prefix=watch&limit=100")["promises"]
    assert len(found) == 12
    assert len({len(one["id"]) for one in found if one["id"] != "watch"}) == 1
    sizes = [len(either.get(f"/promises/{one['id']}/tree")["children"]) for one in found]
    assert max(sizes) <= 3


def test_system_46_recursive_research(either: Worker) -> None:
    start(either, "research", "r", "t", 2)

    assert either.result("r") == "t(ta(taa tab) tb(tba tbb))"
    assert sorted(notes(either, "r.")) == sorted(
        f"think {topic}" for topic in ("t", "ta", "tb", "taa", "tab", "tba", "tbb")
    )


def test_a_message_of_a_queue_starts_one_run_however_often_it_comes(worker: Worker) -> None:
    message = {"id": "m-1", "body": {"number": 17}}

    done = worker.post("/cdn-cgi/handler/queue?queue=orders", [message, message])
    assert (done["outcome"], sorted(done["explicitAcks"]), done["retryBatch"]["retry"]) == ("ok", ["m-1"], False)
    assert worker.post("/cdn-cgi/handler/queue?queue=orders", [message])["explicitAcks"] == ["m-1"]
    (found,) = worker.get("/promises?prefix=order")["promises"]
    assert worker.result(quote(found["id"], safe="")) == {"number": 17}
    assert notes(worker, found["id"]) == ["order 17"]


def test_a_message_that_fails_takes_no_other_along(worker: Worker) -> None:
    """Whatever failed: what is behind it in the batch would be tried in vain as often, and end as a dead letter."""
    batch = [{"id": f"odd-{number}", "body": body} for number, body in enumerate(["even", "odd", "even"])]
    done = worker.post("/cdn-cgi/handler/queue?queue=odd", batch)
    assert (done["outcome"], sorted(done["explicitAcks"])) == ("ok", ["odd-0", "odd-2"])
    assert [one["msgId"] for one in done["retryMessages"]] == ["odd-1"]


def test_a_schedule_is_an_object_that_wakes_itself(worker: Worker) -> None:
    worker.post("/schedules", {"id": "tick", "cron": "* * * * * *", "workflow": "square", "args": [3]})
    until = time.monotonic() + 60
    found: list[dict[str, object]] = []
    while len(found) < 2 and time.monotonic() < until:
        time.sleep(0.3)
        found = worker.get("/promises?prefix=tick.&roots=false&state=resolved")["promises"]
    assert worker.call("DELETE", "/schedules/tick")[0] in (200, 204)

    assert {one["value"] for one in found if one["kind"] != "step"} == {9}
    assert worker.get("/schedules")["schedules"] == []


def test_w9_an_alarm_that_was_lost_is_restored_by_the_sweep(worker: Worker) -> None:
    """After six retries, or by whatever else: the index knows of the run, and the cron asks after it."""
    start(worker, "countdown", "lost", 1, 2.0)
    suspended(worker, "lost")
    time.sleep(0.5)  # until alarm() has ended, which sets the next one
    assert worker.post("/hurt/lost/lose%20the%20alarm") is None
    time.sleep(2)
    assert worker.get("/promises/lost")["state"] == "pending"
    assert worker.post("/cdn-cgi/handler/scheduled") == {"outcome": "ok"}

    assert worker.result("lost") == "counted down from 1"
    assert notes(worker, "lost.") == ["1", "Done"]


def test_an_alarm_that_comes_early_or_twice_is_harmless(worker: Worker) -> None:
    start(worker, "countdown", "early", 2, 0.6)
    for how in ("ring", "ring twice at once", "ring"):
        worker.post(f"/hurt/early/{quote(how)}")

    assert worker.result("early") == "counted down from 2"
    assert notes(worker, "early.") == ["2", "1", "Done"]


def test_b1_an_iteration_writes_three_rows_and_an_alarm(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    def counted(id: str, count: int) -> tuple[int, int]:
        before = worker.get("/counted")
        start(worker, "countdown", id, count, 0.03)
        assert worker.result(id) == f"counted down from {count}"
        time.sleep(0.3)
        after = worker.get("/counted")
        return after["rows"] - before["rows"], after["alarms"] - before["alarms"]

    few, many = counted("rows-3", 3), counted("rows-13", 13)
    rows, alarms = (many[0] - few[0]) / 10, (many[1] - few[1]) / 10
    with capsys.disabled():
        print(
            f"\nrows: {rows} an iteration, and {alarms} alarms; {few[0] - 3 * rows:.0f} beside, the index's with them"
        )
    assert rows == 3
    # One by the start, one a sleep. A timer that comes due before its alarm() ends needs none; an alarm that rings a
    # millisecond early is set once more, and the count is that of all objects.
    assert few[1] <= 1 + 3 + 3
    assert many[1] <= 1 + 13 + 5
    assert few[0] - 3 * rows <= 20


def test_nobody_passes_without_the_token(worker: Worker) -> None:
    assert worker.call("GET", "/promises", headers={"authorization": ""})[0] == 401
    assert (
        worker.call("POST", "/workflows/countdown", {"id": "x", "args": [1]}, headers={"authorization": "Bearer no"})[0]
        == 401
    )
    assert worker.call("GET", "/promises/nobody")[0] == 404
    assert worker.call("GET", "/", headers={"authorization": ""})[0] == 200


def test_what_is_nested_a_hundred_thousand_deep_is_refused_and_ends_nothing(worker: Worker) -> None:
    """A parser that went after it would run out of JavaScript's stack, and the interpreter with it."""
    deep = "[" * 100_000 + "]" * 100_000
    status, problem = worker.call("POST", "/workflows/square", f'{{"id": "deep", "args": {deep}}}'.encode())
    assert (status, problem["detail"]) == (400, "the body is nested too deeply: more than 200 levels")
    assert worker.call("POST", "/", deep.encode())[0] == 400
    create = {"id": "deep", "timeoutAt": NEVER, "param": {}, "tags": {"resonate:external": "true"}}
    settle = {"id": "deep", "state": "resolved", "value": {"data": b64encode(deep.encode()).decode()}}
    for kind, data in (("promise.create", create), ("promise.settle", settle)):
        worker.post("/", {"kind": kind, "head": {"corrId": "c", "version": VERSION}, "data": data})
    assert "nested too deeply" in json.dumps(worker.get("/promises/deep"))
    message = {"id": "m-deep", "body": deep}
    assert worker.post("/cdn-cgi/handler/queue?queue=orders", [message])["explicitAcks"] == ["m-deep"]

    near = "[" * 100 + "]" * 100
    assert worker.call("POST", "/workflows/order", f'{{"id": "near", "args": [{near}]}}'.encode())[0] == 400
    near = near[1:-1]
    assert worker.call("POST", "/workflows/same", f'{{"id": "near", "args": [{near}]}}'.encode())[0] == 202
    assert worker.result("near") == json.loads(near)


def test_a_payload_that_no_row_can_hold_goes_to_the_bucket(worker: Worker) -> None:
    """R2's own binding of workerd, and Cloudflare's simulator behind it."""
    start(worker, "large", "huge", 5_000_000)

    assert worker.result("huge") == 5_000_000
    ((key, size),) = [one for one in worker.get("/bucket") if one[0].startswith("huge")]
    assert size > 5_000_000
    assert len(worker.get("/promises/huge.1")["value"]) == 5_000_000
    worker.get(f"/bucket/lose/{quote(key, safe='')}")
    status, problem = worker.call("GET", "/promises/huge.1")
    assert status == 200
    assert "gone" in json.dumps(problem), problem
    assert worker.get("/promises/huge")["value"] == 5_000_000


def test_the_bucket_gives_back_what_it_was_given(worker: Worker) -> None:
    assert worker.get("/bucket/check") == []


def test_a_bucket_in_trouble_is_the_store_in_trouble(worker: Worker) -> None:
    """Such as a caller comes back for; an error of the platform's own would be taken for a mistake."""
    said = worker.get("/bucket/away")
    assert len(said) == 3
    assert all(one.startswith("StoreUnavailable: ") and "internal error" in one for one in said), said


def test_whatever_is_vendored_can_be_imported_there(worker: Worker) -> None:
    """Each module in real workerd; what stayed behind says so, and how to have it."""
    said = worker.get("/imports")
    refusing = {name for name, text in said.items() if text}
    assert {"everstep.driver", "everstep.http.openapi", "everstep_cloudflare.shift"} <= said.keys() - refusing
    assert len(said.keys() - refusing) > 80
    assert {"everstep.sync", "everstep.cli", "everstep.stores", "everstep.http.bearer"} <= refusing
    for name in refusing:
        assert said[name].startswith(f"{name} was left out of python_modules")
        assert f"--keep {name}" in said[name]


def test_without_a_bucket_it_is_refused_by_name(step_by_step: Worker) -> None:
    start(step_by_step, "large", "huge", 5_000_000)

    view = step_by_step.get("/promises/huge?wait=30")
    assert (view["state"], view["error"]["type"]) == ("rejected", "PayloadTooLarge")


def test_starting_python_takes(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nworkerd: {worker.boot:.2f} s to Python's first answer, {worker.memory()} MiB")
    assert worker.boot > 0
