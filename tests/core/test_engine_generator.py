"""Generator workflows: `yield` where the other style awaits."""

from __future__ import annotations

import asyncio
from typing import Any

from everstep import Context
from tests.core.play import say, workflow_named


def work(*_: Any) -> Any:
    raise AssertionError("the engine runs no step")


def test_yield_waits_for_an_operation_or_for_a_list_of_them(play: Any) -> None:
    def body(ctx: Context) -> Any:
        first = yield ctx.run(work, 1)
        yield ctx.sleep(10)
        both = yield [ctx.run(work, 2), ctx.run(work, 3)]
        none = yield []
        return first, both, none

    live = play(body)
    assert live.commands() == ["r.1 step work(1)"]
    live.settle("r.1", "a")
    assert live.commands() == ["r.2 timer at 10000"]
    live.fire()
    assert live.commands() == ["r.3 step work(2)", "r.4 step work(3)"]
    live.settle("r.4", "c")
    live.settle("r.3", "b")
    assert live.result == ("a", ["b", "c"], [])


def test_a_failure_is_raised_at_the_yield(play: Any) -> None:
    def body(ctx: Context) -> Any:
        try:
            yield ctx.run(work)
        except ValueError as error:
            return str(error)

    live = play(body)
    live.fail("r.1", ValueError("boom"))
    assert live.result == "boom"


def test_a_failure_nobody_catches_is_the_runs_failure(play: Any) -> None:
    def body(ctx: Context) -> Any:
        yield [ctx.run(work), ctx.run(work)]

    live = play(body)
    live.fail("r.2", ValueError("boom"))
    assert live.end() == "rejected ValueError('boom')"


def test_yield_from_another_generator(play: Any) -> None:
    def part(ctx: Context, name: str) -> Any:
        return (yield ctx.run(work, name))

    def body(ctx: Context) -> Any:
        first = yield from part(ctx, "a")
        second = yield from part(ctx, "b")
        return first + second

    live = play(body)
    live.settle("r.1", 1)
    live.settle("r.2", 2)
    assert live.result == 3


def test_tasks_gathers_and_coroutines_may_be_yielded(play: Any) -> None:
    async def part(ctx: Context) -> Any:
        return await ctx.run(work)

    def body(ctx: Context) -> Any:
        one = yield part(ctx)
        two = yield asyncio.gather(ctx.run(work), ctx.run(work))
        three = yield asyncio.get_running_loop().create_task(part(ctx))
        return [one, *two, three]

    live = play(body)
    for number in (1, 3, 2, 4):
        live.settle(f"r.{number}", number)
    assert live.result == [1, 2, 3, 4]


def test_a_generator_that_yields_nothing_durable_is_told_so(play: Any) -> None:
    def body(ctx: Context) -> Any:
        try:
            yield 42
        except TypeError as error:
            return str(error)

    assert "42" in play(body).result


def test_a_list_with_something_else_in_it_is_told_so(play: Any) -> None:
    def body(ctx: Context) -> Any:
        try:
            yield [ctx.sleep(1), 42]
        except TypeError as error:
            return type(error).__name__

    live = play(body)
    assert live.result == "TypeError"


def test_a_generator_as_an_inline_child(play: Any) -> None:
    def kid(ctx: Context, n: int) -> Any:
        return (yield ctx.run(work, n))

    def body(ctx: Context) -> Any:
        return (yield ctx.run(workflow_named(ctx, "kid"), 7))

    live = play(body, workflows=[kid])
    assert live.commands() == ["r.1 child workflow kid(7)", "r.1.1 step work(7)"]
    live.settle("r.1.1", 8)
    assert live.commands() == ["r.1 ended resolved 8"]
    live.settle("r.1", 8)
    assert live.result == 8


def test_cleanup_of_a_generator_that_raises(play: Any) -> None:
    def body(ctx: Context) -> Any:
        try:
            yield ctx.run(work)
        finally:
            say(ctx, "closed")
            yield ctx.run(work, "cleanup")

    live = play(body)
    live.fail("r.1", ValueError("boom"))
    assert live.commands()[-1] == "r.2 step work('cleanup')"
    live.settle("r.2")
    assert live.trace == ["closed"]
    assert live.end() == "rejected ValueError('boom')"


def test_a_plain_function_that_returns_is_a_workflow_of_no_operation(play: Any) -> None:
    def body(ctx: Context) -> int:
        return 5

    assert play(body).result == 5
