"""The development server on Postgres as the gateway of the official SDKs: pulled, pushed, and both ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.support import dev, python, scheduled, survives, typescript, until

SHIPPED = {"value": {"item": "book", "cents": 800}}
pytestmark = pytest.mark.xdist_group("postgres")


def test_the_typescript_sdk_on_postgres(dsn: str, tmp_path: Path) -> None:
    with dev(tmp_path, store=dsn) as server, typescript(server, "w1") as worker:
        assert worker.run("l1", "local", "bob") == {"first": "BOB!", "second": "BOB!!"}
        assert worker.rpc("r1", "remote", "ann", "ts", target="ts") == "got hello ann"
        assert worker.rpc("n1", "nap", 200, target="ts") is True
        assert worker.rpc("f1", "factorial", 4, target="ts") == 24
        answer = worker.tell("rpc", "a1", name="ask", args=["ship?"], target="ts")
        until(lambda: any(note.startswith("mail") for note in worker.notes()), worker)
        id = next(note for note in worker.notes() if note.startswith("mail")).split()[-1]
        server.post(f"/promises/{id}/resolve", {"value": "yes"})
        assert answer() == "ship?: yes"
        server.post("/workflows/calls", {"id": "m1", "args": ["greet", "eve"]})
        assert server.settled("m1")["value"] == "hello eve"
        found = worker.rpc("x1", "across", "quote", "everstep://shop", "book", 2, target="ts")
        assert found == SHIPPED
        with typescript(server, "d1", "default"):
            scheduled(server, worker)


def test_messages_pushed_from_postgres(dsn: str, tmp_path: Path) -> None:
    with dev(tmp_path, store=dsn) as server, typescript(server, "w1", PUSH="1") as worker:
        assert worker.rpc("r1", "remote", "ann", "ts", target="ts") == "got hello ann"
        assert worker.rpc("n1", "nap", 200, target="ts") is True
        assert worker.rpc("x1", "across", "quote", "everstep://shop", "book", 2, target="ts") == SHIPPED
        survives(server, worker, typescript)


@pytest.mark.parametrize("pushed", [{}, {"PUSH": "1"}], ids=["pulled", "pushed"])
def test_the_python_sdk_on_postgres(dsn: str, tmp_path: Path, pushed: dict[str, str]) -> None:
    with dev(tmp_path, store=dsn) as server, python(server, "p1", **pushed) as worker:
        assert worker.run("l1", "local", "bob") == ["BOB!", "BOB!!"]
        assert worker.rpc("r1", "remote", "ann", "py") == "got hello ann"
        assert worker.rpc("n1", "nap", 0.2) == "rested"
        assert worker.rpc("x1", "across", "quote", "everstep://shop", "book", 2) == SHIPPED
        scheduled(server, worker)
        survives(server, worker, python, **pushed)
