"""What concerns more than one run, in real workerd: `verify` over all objects, and messages pushed elsewhere."""

from __future__ import annotations

import http.server
import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from everstep.clock import NEVER
from everstep.protocol import VERSION

from .test_runs import notes, start, suspended
from .worker import Worker

pytestmark = pytest.mark.xdist_group("workerd")


def problems(worker: Worker, how: str) -> dict[str, tuple[str, bool]]:
    """What verify says, by id."""
    report = worker.get(f"/verify/{how}")
    assert report["checked"] >= 2
    return {one["id"]: (one["what"], one["repaired"]) for one in report["problems"]}


def test_verify_finds_what_is_stranded_in_any_object_and_repairs_it(worker: Worker) -> None:
    start(worker, "approval", "sound")
    start(worker, "countdown", "stranded", 1, 1.5)
    suspended(worker, "sound")
    suspended(worker, "stranded")
    time.sleep(0.5)  # until alarm() has ended, which sets the next one
    assert worker.post("/hurt/stranded/forget%20what%20is%20due") is None
    time.sleep(2.5)  # past the timer, and past what an alarm may be late
    assert worker.get("/promises/stranded")["state"] == "pending"

    found = problems(worker, "look")
    assert "sound" not in found
    assert found["stranded"][0].startswith("stored as due at None, but due at ")
    assert found["stranded"][1] is False
    assert worker.get("/promises/stranded")["state"] == "pending"
    assert problems(worker, "repair")["stranded"][1] is True
    assert worker.result("stranded") == "counted down from 1"
    assert notes(worker, "stranded.") == ["1", "Done"]
    assert not {"sound", "stranded"} & problems(worker, "look").keys()
    worker.post("/promises/sound/cancel")


Pushed = tuple[str, str, dict[str, Any]]
"""Path, content type and message."""


@contextmanager
def listening(statuses: Sequence[int]) -> Iterator[tuple[str, queue.Queue[Pushed]]]:
    """A listener on this machine: its address, and what it got. It answers with these, and then 200."""
    got: queue.Queue[Pushed] = queue.Queue()
    left = list(statuses)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status = left.pop(0) if left else 200
            got.put((self.path, self.headers["content-type"], message))
            self.send_response(status)
            if status == 307:
                self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{site.server_port}", got
        finally:
            site.shutdown()


def ask(worker: Worker, kind: str, **data: Any) -> Any:
    answer = worker.post("/", {"kind": kind, "head": {"corrId": "c", "version": VERSION}, "data": data})
    assert answer["head"]["status"] < 300, answer
    return answer["data"]


def test_a_listener_that_stumbles_is_told_again(worker: Worker) -> None:
    with listening([503]) as (address, got):
        ask(worker, "promise.create", id="told", timeoutAt=NEVER, param={}, tags={"resonate:external": "true"})
        ask(worker, "promise.register_listener", awaited="told", address=f"{address}/listener")
        ask(worker, "promise.settle", id="told", state="resolved", value={"data": "w6k="})
        first, second = got.get(timeout=60), got.get(timeout=60)
    assert first == second
    path, content_type, message = first
    assert (path, content_type, message["kind"]) == ("/listener", "application/json", "unblock")
    promise = message["data"]["promise"]
    assert (promise["id"], promise["state"], promise["value"]["data"]) == ("told", "resolved", "w6k=")


def test_a_task_of_another_worker_is_pushed_there_and_no_redirect_is_followed(worker: Worker) -> None:
    with listening([307]) as (address, got):
        tags = {"resonate:target": f"{address}/work"}
        ask(worker, "promise.create", id="there", timeoutAt=NEVER, param={}, tags=tags)
        path, _, message = got.get(timeout=60)
        assert (path, message["kind"]) == ("/work", "execute")
        assert message["data"] == {"task": {"id": "there", "version": 0}}
        ask(worker, "promise.register_listener", awaited="there", address=f"{address}/after")
        ask(worker, "promise.settle", id="there", state="resolved", value={})
        paths = [path]
        while paths[-1] != "/after":
            paths.append(got.get(timeout=60)[0])
    assert set(paths) == {"/work", "/after"}
