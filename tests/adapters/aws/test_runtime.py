"""The handler under Lambda's real runtime client: cold starts, deadlines, kills at every call it makes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everstep.client import Client
from everstep.promise import TaskState
from tests.components import requires_component

from .cloud import QUEUE_ARN
from .emulators import local_store, until
from .runtime import Function, LiveCloud, resident

requires_component("awslambdaric", hint="pip install -e '.[test-aws]'")
pytestmark = pytest.mark.xdist_group("aws-loops")


LIMIT = float(os.environ.get("EVERSTEP_LOOP_LIMIT", "4"))
SOAK = bool(os.environ.get("EVERSTEP_SOAK"))
CALLS = ("get_item", "put_item", "query", "transact_write_items", "send_message", "create_schedule", "delete_schedule")


class Loop:
    """A function behind its queue, over a fresh table, with a client beside it."""

    def __init__(
        self,
        tmp: Path,
        *,
        timeout: float = 3.0,
        memory: int = 1024,
        parallel: int = 4,
        handler: str = "function.handler",
        **env: str,
    ):
        self.table = local_store().table
        (tmp / "ran").mkdir(parents=True, exist_ok=True)
        self.ran = tmp / "ran"
        self.cloud = LiveCloud(visibility=round(timeout * 1000) + 500)
        self.function = Function(
            self.cloud,
            self.table,
            handler=handler,
            timeout=timeout,
            memory=memory,
            RAN=str(self.ran),
            SHORT_DELAYS="1",
            **env,
        )
        self.function.consume(parallel)

    def client(self) -> Client:
        return Client(local_store(self.table), self.cloud.waker(clock=self.cloud.clock))

    def start(self, workflow: str, *args: Any, id: str) -> None:
        for _ in range(6):  # on a busy machine a cold start may take longer than the function may; it is asked again
            outcome = self.function.invoke({"workflow": workflow, "args": list(args), "id": id})
            if outcome.kind == "response":
                break
        assert outcome == ("response", {"id": id}), outcome

    def result(self, id: str, seconds: float = 120) -> Any:
        async def ask() -> Any:
            client = self.client()
            try:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    view = await client.get(id)
                    if view.state != "pending" or view.task == TaskState.HALTED.value:
                        return view
                    await asyncio.sleep(0.1)
                pytest.fail(f"{id} is {await client.get(id)} after {seconds} s; {self.function.log[-10:]}")
            finally:
                await client.close()

        return asyncio.run(ask())

    def resolve(self, id: str, value: Any) -> None:
        """Through the function's URL, again and again until it says that it is done."""
        until(lambda: bool(asyncio.run(local_store(self.table).load([id]))), f"{id} is there")
        until(lambda: self.post(f"/promises/{id}/resolve", {"value": value}) == 200, f"{id} is settled")

    def post(self, path: str, body: Any) -> int | None:
        """A request to the function's URL; its status, or None where the function did not survive it."""
        event = json.loads((Path(__file__).parent / "events" / "function_url.json").read_text())
        event["rawPath"] = event["requestContext"]["http"]["path"] = path
        event["body"] = json.dumps(body)
        outcome = self.function.invoke(event)
        return int(outcome.value["statusCode"]) if outcome.kind == "response" else None

    def executions(self, id: str) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self.ran.iterdir() if path.name.startswith(f"{id}.")}

    def close(self) -> None:
        self.function.close()
        self.cloud.close()


@pytest.fixture
def loop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Loop]:
    made = Loop(tmp_path, **getattr(request, "param", {}))
    yield made
    made.close()


@pytest.mark.parametrize("loop", [{}, {"STEPS": "1"}], indirect=True, ids=["until blocked", "step by step"])
def test_a_real_loop_finishes_everything(loop: Loop) -> None:
    started = {
        "countdown": ("countdown", 5, 0.2),
        "flaky": ("flaky",),
        "fan25": ("fan", 25),
        "fan150": ("fan", 150),
        "everything": ("everything", 3),
        "long": ("long", 16, 0.6),  # three times over the function's time limit
        "approve": ("approve",),
    }
    for id, (workflow, *args) in started.items():
        loop.start(workflow, *args, id=id)
    assert loop.result("countdown").value == "counted down from 5"
    assert loop.executions("countdown") == {f"countdown.{n}": 1 for n in (1, 3, 5, 7, 9, 11)}
    assert loop.result("flaky").value == "at last"
    assert loop.executions("flaky") == {"flaky.1": 3}
    assert loop.result("fan25").value == 300
    assert loop.result("fan150").value == 11_175
    loop.resolve("everything.4", "yes")
    assert loop.result("everything").value == ["first", 7, "yes", "last"]
    loop.resolve("approve.1", {"yes": True})
    assert loop.result("approve").value == {"yes": True}
    assert loop.result("long").value == 16
    assert set(loop.function.log) <= {"response", "timeout"}, "on a busy machine a step may run into the deadline"
    assert loop.cloud.dead == []


@pytest.mark.parametrize("steps", ["", "1"] if SOAK else [""])
def test_a_game_of_chess_of_twenty_plies(tmp_path: Path, steps: str) -> None:
    requires_component("chess", hint="pip install -e '.[test]'")
    loop = Loop(tmp_path, timeout=5.0, parallel=2, handler="games.handler", STEPS=steps)
    try:
        loop.start("chess", 1, 0.1, 20, id="game")
        assert loop.result("game").value == "1/2-1/2"
    finally:
        loop.close()


@pytest.mark.xdist_group("aws-kills")  # they work, and the others wait: beside each other they take half the time
@pytest.mark.parametrize("steps", ["", "1"], ids=["until blocked", "step by step"])
def test_killed_at_every_call_every_run_finishes_with_the_right_answer(tmp_path: Path, steps: str) -> None:
    """Store, queue and scheduler, before each call and after it: each point has a run of its own, all in one loop."""
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    loop = Loop(tmp_path, timeout=LIMIT, DEATHS=str(deaths), STEPS=steps)

    def go(*ids: str) -> None:
        for id in ids:
            loop.start("everything", 3, id=id)
        for id in ids:
            loop.resolve(f"{id}.4", "yes")
        for id in ids:
            assert loop.result(id).value == ["first", 7, "yes", "last"], id
            executions = loop.executions(id)
            assert set(executions) == {f"{id}.1", f"{id}.5"}, id
            assert max(executions.values()) <= 2, f"{id}: a step ran more than once more"

    try:
        go("cold", "warm")
        calls = min((deaths / id).stat().st_size for id in ("cold", "warm"))
        go(*(f"k{point}" for point in range(1, calls + 1)))
        died = [path.read_text() for path in deaths.glob("k*.died")]
        # On a busy machine more is repeated, and a run may get by with fewer calls than those that were counted.
        assert len(died) >= calls * 0.6
        assert loop.function.log.count("exit") >= len(died)
        assert {f"{when} {call}" for call in CALLS for when in ("before", "after")} <= set(died)
        assert loop.cloud.dead == []
    finally:
        loop.close()


def test_runs_that_kill_their_sandbox_are_halted_in_sight_and_block_nobody(tmp_path: Path) -> None:
    deaths = {"exit": "exit", "hang": "timeout", "grow": "memory"}
    if not resident(os.getpid()):
        del deaths["grow"]  # this system does not tell how much memory a process has
    loop = Loop(tmp_path, timeout=5.0, memory=300, MAX_DEATHS="1")
    try:
        for how in deaths:
            loop.start("poison", how, id=how)
        loop.start("countdown", 1, 0.1, id="c")
        assert loop.result("c").value == "counted down from 1"
        for how, death in deaths.items():
            halted = loop.result(how)
            assert (halted.state, halted.task) == ("pending", TaskState.HALTED.value)
            assert "without progress" in halted.reason
            assert loop.function.log.count(death) >= 2, "one death is forgiven"
    finally:
        loop.close()


def test_memory_that_the_system_refuses_fails_the_step_in_sight(tmp_path: Path) -> None:
    """Under RLIMIT_AS nobody is killed: it is an error like any other, and the sandbox lives on."""
    loop = Loop(tmp_path, timeout=5.0, parallel=1, ADDRESS_SPACE=str(4096))
    try:
        loop.start("poison", "refused", id="p")
        refused = loop.result("p")
        assert (refused.state, refused.error["type"]) == ("rejected", "MemoryError")
        assert set(loop.function.log) == {"response"}
    finally:
        loop.close()


@pytest.mark.parametrize("listens", [True, False], ids=["a daemon", "nobody there"])
def test_x_ray_is_told_of_every_invocation_and_missed_by_none(tmp_path: Path, listens: bool) -> None:
    """Powertools' tracer over X-Ray's own SDK, which sends to its daemon by UDP."""
    requires_component("aws_xray_sdk", hint="pip install -e '.[test-aws]'")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(0.2)
        address = "{}:{}".format(*daemon.getsockname())
        if not listens:
            daemon.close()
        tracing = {"POWERTOOLS_SERVICE_NAME": "shop", "AWS_XRAY_DAEMON_ADDRESS": address}
        loop = Loop(tmp_path, timeout=5.0, parallel=1, **tracing)
        try:
            loop.start("countdown", 2, 0.1, id="c")
            assert loop.result("c").value == "counted down from 2"
        finally:
            loop.close()
        assert set(loop.function.log) == {"response"}
        told = [json.loads(datagram.partition(b"\n")[2]) for datagram in received(daemon)] if listens else []
    if listens:
        assert {one["name"] for one in told} == {"## everstep"}
        assert len({one["trace_id"] for one in told}) == len(told) == len(loop.function.log), "each has its own trace"
        assert all(one["type"] == "subsegment" and one["parent_id"] and "error" not in one for one in told)
        counted = [one["annotations"] for one in told if "annotations" in one]
        assert sum(one.get("ColdStarts", 0) for one in counted) == 1
        assert sum(one.get("Steps", 0) for one in counted) == 3
        assert sum(one.get("Settled", 0) for one in counted) == 1


def received(listener: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(TimeoutError):
        while True:
            yield listener.recv(65_536)


def halted(loop: Loop, *ids: str) -> None:
    """The queue gives up on these runs, and the consumer of its dead letters halts them in sight."""
    dead = Function(loop.cloud, loop.table, handler="everstep_aws.dead_letters", timeout=5.0)
    try:
        until(lambda: len(loop.cloud.dead) >= len(ids), "the queue gives up")
        event = {"Records": [message.record(QUEUE_ARN) for message in loop.cloud.dead]}
        # What is still held is reported as failed, and comes again.
        until(lambda: dead.invoke(event) == ("response", {"batchItemFailures": []}), "the consumer is done")
    finally:
        dead.close()
    for id in ids:
        view = loop.result(id)
        assert (view.state, view.task) == ("pending", TaskState.HALTED.value)
        assert "the queue gave up" in view.reason


def test_a_function_that_cannot_be_imported_ends_among_the_dead_letters(tmp_path: Path) -> None:
    loop = Loop(tmp_path, timeout=5.0, parallel=1)
    loop.start("countdown", 1, 0.1, id="c")
    loop.function.close()
    loop.cloud.visibility, loop.cloud.max_receives = 200, 3
    broken = Function(loop.cloud, loop.table, handler="broken.handler", timeout=5.0)
    try:
        broken.consume(1)
        halted(loop, "c")
        assert set(broken.log) == {"init"}
    finally:
        broken.close()
        loop.cloud.close()


def test_a_run_that_may_die_more_often_than_its_message_may_come_ends_among_the_dead_letters(tmp_path: Path) -> None:
    loop = Loop(tmp_path, timeout=3.0, memory=300, MAX_DEATHS="50")
    loop.cloud.visibility, loop.cloud.max_receives = 4_500, 2  # beyond the lease, as the template has it
    poisons = ["exit", "hang", "grow"] if resident(os.getpid()) else ["exit", "hang"]
    try:
        for how in poisons:
            loop.start("poison", how, id=how)
        loop.start("countdown", 1, 0.1, id="c")
        assert loop.result("c").value == "counted down from 1"
        halted(loop, *poisons)
    finally:
        loop.close()
