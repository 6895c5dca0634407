"""What it takes, in requests that Google bills. The counts are promises (rules B1 and B3)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from everstep import App, Context

from .rig import FunctionRig
from .test_auth import keys

pytestmark = pytest.mark.xdist_group("firestore")

app = App("costs")


@app.step
def say(text: str) -> str:
    return text


@app.workflow
async def steps(ctx: Context, number: int) -> int:
    for one in range(number):
        await ctx.run(say, str(one))
    return number


@app.workflow
async def countdown(ctx: Context, number: int) -> None:
    for left in range(number, 0, -1):
        await ctx.run(say, str(left))
        await ctx.sleep(60)


@app.workflow
async def child(ctx: Context, number: int) -> int:
    return number


@app.workflow
async def fan(ctx: Context, number: int) -> int:
    return len(await asyncio.gather(*[ctx.rpc(child, one) for one in range(number)]))


def measured(project: str, test: Callable[[FunctionRig], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        rig = FunctionRig(app, project, keys)
        try:
            with rig.fate:
                await test(rig)
        finally:
            await rig.close()

    asyncio.run(run())


def test_a_step_is_one_document(project: str) -> None:
    async def test(rig: FunctionRig) -> None:
        await rig.client.start("steps", 20, id="s")
        await rig.advance(5)
        assert await rig.client.handle("s").result(0) == 20
        assert rig.fate.counts == {"query": 1, "commit": 22, "documents": 22}, "one to acquire, and one to settle"
        assert rig.fate.written == {"s": 2, **{f"s.{n}": 1 for n in range(1, 21)}}

    measured(project, test)


def test_an_iteration_of_a_countdown_is_three_writes_a_query_and_a_task(project: str) -> None:
    async def test(rig: FunctionRig) -> None:
        await rig.client.start("countdown", 6, id="c")
        await rig.advance(90)
        for _ in range(3):
            rig.fate.counts.clear()
            rig.function.cold()
            await rig.advance(60)
            assert rig.fate.counts == {"query": 1, "commit": 3, "documents": 3, "arm": 1}

    measured(project, test)


def test_an_instance_that_is_warm_reads_one_document(project: str) -> None:
    async def test(rig: FunctionRig) -> None:
        await rig.client.start("countdown", 4, id="c")
        await rig.advance(90)
        rig.fate.counts.clear()
        await rig.advance(60)
        assert rig.fate.counts == {"get": 1, "commit": 3, "documents": 3, "arm": 1}

    measured(project, test)


def test_a_fan_in_of_a_hundred_hardly_touches_its_parent(project: str) -> None:
    """A document takes about one write a second for long; a hundred completions must not meet at one."""

    async def test(rig: FunctionRig) -> None:
        await rig.client.start("fan", 100, id="f")
        await rig.advance(60)
        assert await rig.client.handle("f").result(0) == 100
        written = rig.fate.written
        parent = written.pop("f")
        assert parent <= 8, "to acquire, create in two commits, suspend, and be woken once"
        assert len(written) == 100
        assert Counter(written.values()) == {4: 100}, "created, acquired, settled, its parent told"
        assert rig.fate.counts["arm"] <= 100 + 100 + 8

    measured(project, test)


def test_a_wake_up_that_comes_twice_writes_nothing(project: str) -> None:
    async def test(rig: FunctionRig) -> None:
        await rig.client.start("countdown", 1, id="c")
        await rig.advance(200)
        rig.fate.counts.clear()
        for _ in range(3):
            answer = await asyncio.to_thread(rig.call, "POST", "/wake", {"id": "c", "version": 2})
            assert answer.status_code == 200
        assert not rig.fate.counts["commit"]
        assert not rig.fate.counts["arm"]

    measured(project, test)
