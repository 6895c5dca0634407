"""The handler under Lambda's real runtime client: cold starts, deadlines, kills at every call it makes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everstep.client import Client
from everstep.promise import TaskState

from .emulators import local_store, until
from .runtime import Function, LiveCloud

pytest.importorskip("awslambdaric")
pytestmark = pytest.mark.xdist_group("dynamodb-local")


class Loop:
    """A function behind its queue, over a fresh table, with a client beside it."""

    def __init__(
        self, tmp: Path, *, timeout: float = 3.0, parallel: int = 4, handler: str = "function.handler", **env: str
    ):
        self.table = local_store().table
        (tmp / "ran").mkdir(exist_ok=True)
        self.ran = tmp / "ran"
        self.cloud = LiveCloud(visibility=round(timeout * 1000) + 500)
        self.function = Function(
            self.cloud, self.table, handler=handler, timeout=timeout, RAN=str(self.ran), SHORT_DELAYS="1", **env
        )
        self.function.consume(parallel)

    def client(self) -> Client:
        return Client(local_store(self.table), self.cloud.waker(clock=self.cloud.clock))

    def start(self, workflow: str, *args: Any, id: str) -> None:
        outcome = self.function.invoke({"workflow": workflow, "args": list(args), "id": id})
        assert outcome == ("response", {"id": id}), outcome

    def result(self, id: str, seconds: float = 60) -> Any:
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
        "everything": ("everything", 3),
        "long": ("long", 12, 0.9),  # three times over the function's time limit
        "approve": ("approve",),
    }
    for id, (workflow, *args) in started.items():
        loop.start(workflow, *args, id=id)
    assert loop.result("countdown").value == "counted down from 5"
    assert loop.executions("countdown") == {f"countdown.{n}": 1 for n in (1, 3, 5, 7, 9, 11)}
    assert loop.result("flaky").value == "at last"
    assert loop.executions("flaky") == {"flaky.1": 3}
    assert loop.result("fan25").value == 300
    assert loop.result("everything").value == ["first", 7, "last"]
    loop.resolve("approve.1", {"yes": True})
    assert loop.result("approve").value == {"yes": True}
    assert loop.result("long", 90).value == 12
    assert set(loop.function.log) <= {"response"}, "nothing ran into the deadline"
    assert loop.cloud.dead == []
