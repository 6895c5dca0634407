"""The handler under Lambda's real runtime client: cold starts, deadlines, kills at every call it makes."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
        async def settle() -> None:
            client = self.client()
            await client.resolve(id, value)
            await client.close()

        until(lambda: bool(asyncio.run(local_store(self.table).load([id]))), f"{id} is there")
        asyncio.run(settle())

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
        **({"fan150": ("fan", 150)} if SOAK else {}),
        "everything": ("everything", 3),
        "long": ("long", 25, 0.4),  # three times over the function's time limit
        "approve": ("approve",),
    }
    for id, (workflow, *args) in started.items():
        loop.start(workflow, *args, id=id)
    assert loop.result("countdown").value == "counted down from 5"
    assert loop.executions("countdown") == {f"countdown.{n}": 1 for n in (1, 3, 5, 7, 9, 11)}
    assert loop.result("flaky").value == "at last"
    assert loop.executions("flaky") == {"flaky.1": 3}
    assert loop.result("fan25").value == 300
    if SOAK:
        assert loop.result("fan150", 300).value == 11_175
    assert loop.result("everything").value == ["first", 7, "last"]
    loop.resolve("approve.1", {"yes": True})
    assert loop.result("approve").value == {"yes": True}
    assert loop.result("long").value == 25
    assert set(loop.function.log) <= {"response", "timeout"}, "on a busy machine a step may run into the deadline"
    assert loop.cloud.dead == []


def test_a_game_of_chess_of_twenty_plies(tmp_path: Path) -> None:
    requires_component("chess", hint="pip install -e '.[test]'")
    loop = Loop(tmp_path, timeout=5.0, parallel=2, handler="games.handler")
    try:
        loop.start("chess", 1, 0.1, 20, id="game")
        assert loop.result("game").value == "1/2-1/2"
    finally:
        loop.close()


def test_killed_at_every_call_every_run_finishes_with_the_right_answer(tmp_path: Path) -> None:
    """Store, queue and scheduler, before each call and after it: each point has a run of its own, many at a time."""
    points = 0 if SOAK else int(os.environ.get("EVERSTEP_LOOP_POINTS", "5"))
    reference = Loop(tmp_path / "reference", timeout=LIMIT, DEATHS=_folder(tmp_path / "counted", 10**6))
    try:
        reference.start("everything", 3, id="r")
        assert reference.result("r").value == ["first", 7, "last"]
    finally:
        reference.close()
    (counted,) = (tmp_path / "counted").iterdir()
    calls = counted.stat().st_size
    assert calls > 30, "every call counts twice: before it and after it"
    chosen = range(1, calls + 1) if not points else sorted(random.Random(calls).sample(range(1, calls + 1), points))

    def at(point: int) -> tuple[int, Any, dict[str, int], int]:
        loop = Loop(
            tmp_path / f"{point}", timeout=LIMIT, parallel=2, DEATHS=_folder(tmp_path / f"deaths-{point}", point)
        )
        try:
            loop.start("everything", 3, id="x")  # who gets no answer asks again
            value = loop.result("x").value
            return point, value, loop.executions("x"), loop.function.log.count("exit")
        finally:
            loop.close()

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(at, chosen))
    for point, value, executions, deaths in outcomes:
        assert value == ["first", 7, "last"], f"killed at {point}"
        assert set(executions) == {"x.1", "x.4"}, f"killed at {point}"
        assert max(executions.values()) <= 2, f"killed at {point}: a step ran more than once more"
    assert sum(deaths for *_, deaths in outcomes) >= len(outcomes) * 0.8, "most of them were killed indeed"


def _folder(path: Path, point: int) -> str:
    path.mkdir(parents=True)
    (path / f"count-{point}").touch()
    return str(path)


@pytest.mark.parametrize(("how", "death"), [("exit", "exit"), ("hang", "timeout"), ("grow", "memory")])
def test_a_run_that_kills_its_sandbox_is_halted_in_sight_and_blocks_nobody(
    tmp_path: Path, how: str, death: str
) -> None:
    if how == "grow" and not resident(os.getpid()):
        pytest.skip("this system does not tell how much memory a process has")
    loop = Loop(tmp_path, timeout=5.0, memory=300, parallel=2, MAX_DEATHS="1")
    try:
        loop.start("poison", how, id="p")
        loop.start("countdown", 1, 0.1, id="c")
        assert loop.result("c").value == "counted down from 1"
        halted = loop.result("p")
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


def test_a_function_that_cannot_be_imported_ends_among_the_dead_letters(tmp_path: Path) -> None:
    loop = Loop(tmp_path, timeout=5.0, parallel=1)
    loop.start("countdown", 1, 0.1, id="c")
    loop.function.close()
    loop.cloud.visibility, loop.cloud.max_receives = 200, 3
    broken = Function(loop.cloud, loop.table, handler="broken.handler", timeout=5.0)
    dead = Function(loop.cloud, loop.table, handler="everstep_aws.dead_letters", timeout=5.0)
    try:
        broken.consume(1)
        until(lambda: bool(loop.cloud.dead), "the queue gives up")
        broken.close()
        assert set(broken.log) == {"init"}
        (message,) = loop.cloud.dead
        assert dead.invoke({"Records": [message.record(QUEUE_ARN)]}) == ("response", {"batchItemFailures": []})
        view = loop.result("c")
        assert view.task == TaskState.HALTED.value
        assert "the queue gave up" in view.reason
    finally:
        dead.close()
        loop.cloud.close()
