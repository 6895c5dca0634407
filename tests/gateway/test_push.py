"""Messages pushed over HTTP to a worker that has an address, and lost pushes."""

from __future__ import annotations

import http.server
import json
import queue
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from everstep.clock import NEVER
from everstep.protocol import VERSION
from tests.components import requires_component
from tests.gateway.support import Dev, dev, typescript

requires_component("httpx", hint="pip install -e '.[gateway]'")


class Worker:
    """A worker with an address: it acquires and fulfils what it is offered, at the server that the message names."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses = statuses
        self.got: queue.Queue[dict[str, Any]] = queue.Queue()

    def take(self, message: dict[str, Any]) -> None:
        self.got.put(message)
        if message["kind"] != "execute":
            return
        task, server = message["data"]["task"], message["head"]["serverUrl"]
        ask(server, "task.acquire", **task, pid="pushed", ttl=60_000)
        settle = {"id": task["id"], "state": "resolved", "value": {"data": "MQ=="}}
        action = {"kind": "promise.settle", "head": {}, "data": settle}
        ask(server, "task.fulfill", id=task["id"], version=task["version"] + 1, action=action)


def ask(server: str, kind: str, **data: Any) -> Any:
    body = json.dumps({"kind": kind, "head": {"corrId": "c", "version": VERSION}, "data": data}).encode()
    request = urllib.request.Request(server, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


@contextmanager
def listening(worker: Worker, port: int = 0) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status = worker.statuses.pop(0) if worker.statuses else 200
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()
            if status == 200:
                threading.Thread(target=worker.take, args=(message,), daemon=True).start()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        try:
            yield site.server_port
        finally:
            site.shutdown()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Dev]:
    with dev(tmp_path) as running:
        yield running


def create(server: Dev, id: str, **tags: str) -> None:
    ask(server.url, "promise.create", id=id, timeoutAt=NEVER, param={}, tags=tags)


def test_a_task_is_pushed_to_its_worker(server: Dev) -> None:
    worker = Worker([])
    with listening(worker) as port:
        create(server, "t", **{"resonate:target": f"http://127.0.0.1:{port}/work"})
        assert server.settled("t")["value"] == 1
    assert worker.got.get(timeout=30)["data"] == {"task": {"id": "t", "version": 0}}


def test_a_listener_that_stumbles_is_told_again(server: Dev) -> None:
    worker = Worker([503, 500])
    with listening(worker) as port:
        create(server, "p", **{"resonate:external": "true"})
        ask(server.url, "promise.register_listener", awaited="p", address=f"http://127.0.0.1:{port}/")
        ask(server.url, "promise.settle", id="p", state="resolved", value={})
        said = worker.got.get(timeout=30)
    assert said["kind"] == "unblock"
    assert said["data"]["promise"]["id"] == "p"


def test_a_listener_is_told_by_the_server_of_what_another_process_settled(server: Dev) -> None:
    from everstep import SyncClient

    worker = Worker([])
    with listening(worker) as port:
        create(server, "p", **{"resonate:external": "true"})
        ask(server.url, "promise.register_listener", awaited="p", address=f"http://127.0.0.1:{port}/")
        with SyncClient.open(f"sqlite:///{server.folder / 'shop.db'}") as client:
            client.resolve("p", True)
        assert worker.got.get(timeout=30)["data"]["promise"]["id"] == "p"


def test_pushes_go_only_where_they_may(tmp_path: Path) -> None:
    worker = Worker([])
    with listening(worker) as port, dev(tmp_path, "--push-to", "https://workers.example/") as server:
        create(server, "t", **{"resonate:target": f"http://127.0.0.1:{port}/"})
        assert server.get("/promises/t?wait=1")["state"] == "pending"
        assert worker.got.empty()


def test_the_typescript_sdk_with_messages_pushed(server: Dev) -> None:
    with typescript(server, "w1", PUSH="1") as worker:
        assert worker.address.startswith("http://127.0.0.1:")
        assert worker.run("l1", "local", "bob") == {"first": "BOB!", "second": "BOB!!"}
        assert worker.rpc("r1", "remote", "ann", "ts", target="ts") == "got hello ann"
        assert worker.rpc("n1", "nap", 200, target="ts") is True
        assert worker.rpc("f1", "factorial", 4, target="ts") == 24
        assert worker.rpc("x1", "across", "quote", "everstep://shop", "pen", target="ts") == {
            "value": {"item": "pen", "cents": 300}
        }
