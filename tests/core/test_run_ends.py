"""How operations and runs end that end badly: always with an outcome, on the record, and never with the invocation."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from everstep import App, Conflict, Context, PromiseCanceled
from everstep.errors import Panic
from everstep.promise import State
from everstep.testing import Simulation

BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


def in_sim(app: App, workflow: Any, mode: Any, *args: Any) -> Any:
    sim = Simulation(app, mode=mode)
    handle = sim.start(workflow, *args, id="w1")
    sim.advance(days=1)
    assert handle.done, handle.record()
    return handle.result()


class Odd(BaseException):
    pass


@BOTH
@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("error", [SystemExit(3), Odd("odd"), GeneratorExit()], ids=repr)
def test_a_step_may_raise_anything(mode: Any, way: str, error: BaseException) -> None:
    app = App("a")

    def sync() -> None:
        raise error

    async def later() -> None:
        await asyncio.sleep(0)
        raise error

    @app.workflow
    async def work(ctx: Context) -> str:
        try:
            await ctx.run(sync if way == "sync" else later)
        except Exception as caught:
            return f"{type(caught).__name__} {caught}".strip()
        return "fine"

    assert in_sim(app, work, mode) == f"{type(error).__name__} {error}".strip()


@BOTH
def test_a_step_that_is_cancelled_from_within_has_failed_and_is_tried_again(mode: Any) -> None:
    app, tries = App("a"), []

    @app.step
    async def leaky() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise asyncio.CancelledError
        return "done"

    @app.workflow
    async def work(ctx: Context) -> str:
        return await ctx.run(leaky)

    assert in_sim(app, work, mode) == "done"
    assert len(tries) == 3


@BOTH
def test_a_step_that_lost_a_race_is_really_cancelled(mode: Any) -> None:
    app, seen = App("a"), []

    @app.step
    async def slow() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @app.workflow
    async def work(ctx: Context) -> str:
        try:
            async with asyncio.timeout(5):
                await ctx.run(slow)
        except TimeoutError:
            return "late"
        return "in time"

    assert in_sim(app, work, mode) == "late"
    assert seen == ["cancelled"]


@BOTH
@pytest.mark.parametrize("where", ["body", "task", "child", "generator"])
@pytest.mark.parametrize("error", [SystemExit(3), Odd("odd")], ids=repr)
def test_a_body_may_raise_anything(mode: Any, where: str, error: BaseException) -> None:
    app = App("a")

    @app.workflow
    async def kid(ctx: Context) -> None:
        raise error

    @app.workflow
    async def work(ctx: Context) -> None:
        async def part() -> None:
            raise error

        match where:
            case "task":
                await asyncio.create_task(part())
            case "child":
                await ctx.run(kid)
            case _:
                raise error

    @app.workflow
    def generator(ctx: Context) -> Any:
        yield ctx.sleep(1)
        raise error

    with pytest.raises(Exception, match=str(error)) as caught:
        in_sim(app, generator if where == "generator" else work, mode)
    assert type(caught.value).__name__ == type(error).__name__


@BOTH
def test_sys_exit_in_a_workflow_is_not_the_end_of_the_process(mode: Any) -> None:
    app = App("a")

    @app.workflow
    async def leaves(ctx: Context) -> None:
        sys.exit("enough")

    with pytest.raises(Exception, match="enough"):
        in_sim(app, leaves, mode)


@BOTH
def test_a_child_that_cancels_itself_is_a_failure_to_its_parent(mode: Any) -> None:
    app = App("a")

    @app.workflow
    async def kid(ctx: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await ctx.sleep(1)

    @app.workflow
    async def work(ctx: Context) -> str:
        try:
            await ctx.run(kid)
        except PromiseCanceled as error:
            return str(error)
        return "fine"

    assert in_sim(app, work, mode) == "w1.1 cancelled itself"


@BOTH
def test_a_panic_raised_by_hand_halts_like_one_of_the_context(mode: Any) -> None:
    app = App("a")

    @app.workflow
    async def work(ctx: Context) -> None:
        raise Panic("two and two are five")

    sim = Simulation(app, mode=mode)
    handle = sim.start(work)
    sim.advance(days=1)
    assert handle.halted
    record = handle.record()
    assert record.task is not None
    assert record.task.reason == "Panic: two and two are five"


@BOTH
@pytest.mark.parametrize("verb", ["rpc", "run", "detached", "promise"])
def test_an_id_that_other_work_has_is_a_conflict_the_body_can_catch(mode: Any, verb: str) -> None:
    app = App("a")

    @app.workflow
    async def double(ctx: Context, n: int) -> int:
        return 2 * n

    @app.workflow
    async def work(ctx: Context) -> str:
        ctx = ctx.options(id="taken")
        try:
            await (ctx.promise() if verb == "promise" else getattr(ctx, verb)(double, 1))
        except Conflict as error:
            return str(error)
        return "attached"

    sim = Simulation(app, mode=mode)
    assert sim.run(sim.start(double, 2, id="taken")) == 4
    handle = sim.start(work)
    said = sim.run(handle)
    assert said.startswith("'taken' ")
    if verb != "promise":
        assert "double()" in said
    sim.kill()
    assert sim.run(sim.start(work, id=handle.id)) == said


@BOTH
@pytest.mark.parametrize("verb", ["rpc", "run", "detached"])
def test_an_id_that_the_same_work_has_is_attached_to(mode: Any, verb: str) -> None:
    app = App("a")

    @app.workflow
    async def double(ctx: Context, n: int) -> int:
        return 2 * n

    @app.workflow
    async def work(ctx: Context) -> Any:
        return await getattr(ctx.options(id="taken"), verb)(double, 2)

    sim = Simulation(app, mode=mode)
    assert sim.run(sim.start(double, 2, id="taken")) == 4
    assert sim.run(sim.start(work)) == ("taken" if verb == "detached" else 4)


@BOTH
@pytest.mark.parametrize("cold", [True, False])
def test_c5_cancelling_a_child_cancels_what_it_waits_for_and_its_children(mode: Any, cold: bool) -> None:
    app = App("a")

    @app.workflow
    async def grandchild(ctx: Context) -> None:
        await ctx.promise()

    @app.workflow
    async def kid(ctx: Context) -> None:
        await asyncio.gather(ctx.promise(), ctx.rpc(grandchild), ctx.sleep(1000))

    @app.workflow
    async def work(ctx: Context) -> str:
        started = ctx.rpc(kid)
        await ctx.sleep(5)
        started.cancel()
        return "done"

    sim = Simulation(app, mode=mode)
    handle = sim.start(work, id="w1")
    sim.advance(seconds=4)
    if cold:
        sim.cold()
    assert sim.run(handle) == "done"
    sim.advance(days=1)
    canceled = ["w1.1", "w1.1.1", "w1.1.2", "w1.1.2.1"]
    assert [sim.record(id).state.value for id in canceled] == ["rejected_canceled"] * 4


@BOTH
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("cold", [True, False])
def test_what_a_body_leaves_behind_is_finished_or_cancelled_before_the_run_ends(
    mode: Any, fails: bool, cold: bool
) -> None:
    app, done = App("a"), []

    @app.step
    async def slow(name: str) -> None:
        await asyncio.sleep(10)
        done.append(name)

    @app.workflow
    async def kid(ctx: Context) -> None:
        await ctx.sleep(100)
        done.append("kid")

    @app.workflow
    async def work(ctx: Context) -> str:
        ctx.run(slow, "step")
        ctx.rpc(kid)
        ctx.promise()
        ctx.sleep(86_400)
        if fails:
            raise ValueError("no luck")
        return "done"

    sim = Simulation(app, mode=mode)
    handle = sim.start(work, id="w1")
    sim.advance(seconds=50)
    assert handle.status() == "pending"
    if cold:
        sim.cold()
    sim.advance(seconds=51)
    assert handle.status() == ("rejected" if fails else "resolved")
    assert done == ["step", "kid"]
    assert sim.record("w1.3").state.value == "rejected_canceled"
    assert all(row.state != "pending" for row in sim.world.store._rows.values())


@BOTH
def test_a_failed_gather_lets_the_others_finish_before_the_run_fails(mode: Any) -> None:
    app, done = App("a"), []

    @app.step
    async def works() -> None:
        await asyncio.sleep(10)
        done.append("works")

    @app.workflow
    async def fails(ctx: Context) -> None:
        raise ValueError("no luck")

    @app.workflow
    async def work(ctx: Context) -> None:
        await asyncio.gather(ctx.rpc(fails), ctx.run(works))

    with pytest.raises(ValueError, match="no luck"):
        in_sim(app, work, mode)
    assert done == ["works"]


@BOTH
@pytest.mark.parametrize("way", ["cancelled", "left"])
def test_a_promise_with_a_name_of_its_own_stays_for_others_who_wait_for_it(mode: Any, way: str) -> None:
    app = App("a")

    @app.workflow
    async def leaves(ctx: Context) -> str:
        shared, own = ctx.promise(id="approval"), ctx.promise()
        await ctx.sleep(1)
        if way == "cancelled":
            shared.cancel()
            own.cancel()
            await ctx.sleep(1)
        return own.id

    @app.workflow
    async def waits(ctx: Context) -> Any:
        return await ctx.promise(id="approval")

    sim = Simulation(app, mode=mode)
    first, second = sim.start(leaves, id="w1"), sim.start(waits, id="w2")
    sim.advance(hours=1)
    assert sim.record(first.result()).state is State.CANCELED
    assert sim.record("approval").pending
    sim.resolve("approval", "yes")
    sim.advance(hours=1)
    assert second.result() == "yes"
