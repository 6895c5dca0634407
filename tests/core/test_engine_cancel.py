"""Cancellation: a cancelled future settles its promise as cancelled; a cancelled task cancels what it waits for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everstep import Context, PromiseCanceled
from everstep.promise import State
from tests.core.play import say, workflow_named


def work(*_: Any) -> Any:
    raise AssertionError("the engine runs no step")


def test_a_future_cancelled_before_anybody_asked_is_never_asked_for(play: Any) -> None:
    async def body(ctx: Context) -> str:
        ctx.run(work).cancel()
        return "done"

    live = play(body)
    assert live.commands() == ["r.1 canceled"]
    assert live.result == "done"


def test_a_cancelled_task_cancels_the_operation_it_waits_for(play: Any) -> None:
    async def body(ctx: Context) -> str:
        async def part() -> None:
            try:
                await ctx.promise()
            finally:
                say(ctx, "cleanup")

        task = asyncio.create_task(part())
        await ctx.run(work)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return "done"

    live = play(body)
    assert live.commands() == ["r.1 step work()", "r.2 a promise"]
    live.settle("r.1")
    assert live.commands() == ["r.2 canceled"]
    assert live.trace == ["cleanup"]
    assert live.result == "done"


def test_the_cleanup_of_a_cancelled_task_may_use_steps(play: Any) -> None:
    async def body(ctx: Context) -> str:
        async def part() -> None:
            try:
                await ctx.promise()
            finally:
                await ctx.run(work, "cleanup")

        task = asyncio.create_task(part())
        await ctx.run(work)
        task.cancel()
        await asyncio.wait([task])
        return "done"

    live = play(body)
    live.commands()
    live.settle("r.1")
    assert live.commands() == ["r.3 step work('cleanup')", "r.2 canceled"]
    live.settle("r.3")
    assert live.result == "done"


def test_a_late_completion_of_a_cancelled_operation_changes_nothing(play: Any) -> None:
    async def body(ctx: Context) -> Any:
        async def part() -> Any:
            return await ctx.promise()

        task = asyncio.create_task(part())
        await ctx.run(work)
        task.cancel()
        return await ctx.run(work, 2)

    live = play(body)
    live.settle("r.1")
    live.settle("r.2", "too late")
    live.settle("r.3", "ok")
    assert live.result == "ok"


def test_settled_as_cancelled_from_outside_is_an_exception_not_a_cancellation(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            await ctx.promise()
        except PromiseCanceled as error:
            return str(error)
        return "settled"

    live = play(body)
    live.settle("r.1", state=State.CANCELED)
    assert "r.1" in live.result


def test_a_cancelled_inline_child_stops_and_its_operations_are_cancelled(play: Any) -> None:
    async def kid(ctx: Context) -> None:
        try:
            await ctx.promise()
        finally:
            say(ctx, "kid cleans up")

    async def body(ctx: Context) -> str:
        started = ctx.run(workflow_named(ctx, "kid"))
        await ctx.run(work)
        started.cancel()
        await asyncio.sleep(0)
        return "done"

    live = play(body, workflows=[kid])
    assert live.commands() == ["r.1 child workflow kid()", "r.2 step work()", "r.1.1 a promise"]
    live.settle("r.2")
    assert live.commands() == ["r.1.1 canceled", "r.1 canceled"]
    assert live.trace == ["kid cleans up"]
    assert live.result == "done"


def test_a_body_that_cancels_itself_is_rejected(play: Any) -> None:
    async def body(ctx: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await ctx.run(work)

    live = play(body)
    assert live.end().startswith("rejected PromiseCanceled")


def test_gather_that_is_cancelled_cancels_its_operations(play: Any) -> None:
    async def body(ctx: Context) -> str:
        both = asyncio.gather(ctx.promise(), ctx.promise())
        await ctx.run(work)
        both.cancel()
        try:
            await both
        except asyncio.CancelledError:
            return "cancelled"
        return "done"

    live = play(body)
    live.commands()
    live.settle("r.3")
    assert live.commands() == ["r.1 canceled", "r.2 canceled"]
    assert live.result == "cancelled"
