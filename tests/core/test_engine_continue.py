"""`return ctx.continue_as_new(...)`: the same id, fresh arguments, ids of a generation of their own (rule I5)."""

from __future__ import annotations

from typing import Any

from everstep import Context
from everstep.context import ContinueAsNew


def work(*_: Any) -> Any:
    raise AssertionError("the engine runs no step")


async def monitor(ctx: Context, seen: int, *, limit: int = 3) -> Any:
    found = await ctx.run(work, seen)
    if seen + found >= limit:
        return seen + found
    return ctx.continue_as_new(seen + found, limit=limit)


def test_the_outcome_carries_the_arguments(play: Any) -> None:
    live = play(monitor, 0)
    live.settle("r.1", 1)
    assert live.result == ContinueAsNew((1,), {"limit": 3})


def test_i5_ids_of_a_later_generation_are_its_own(play: Any) -> None:
    live = play(monitor, 1, generation=2)
    assert live.commands() == ["r.g2.1 step work(1)"]
    live.settle("r.g2.1", 2)
    assert live.result == 3


def test_i5_generations_share_no_randomness(play: Any) -> None:
    async def body(ctx: Context) -> list[Any]:
        return [ctx.random(), ctx.uuid(), ctx.info.generation]

    first, second = play(body).result, play(body, generation=2).result
    assert not set(first) & set(second)
    assert (first[2], second[2]) == (1, 2)


def test_a_generator_workflow_may_continue_too(play: Any) -> None:
    def body(ctx: Context, n: int) -> Any:
        yield ctx.run(work)
        return ctx.continue_as_new(n + 1)

    live = play(body, 1)
    live.settle("r.1")
    assert live.result == ContinueAsNew((2,), {})


def test_arguments_are_checked_at_the_call(play: Any) -> None:
    async def body(ctx: Context, n: int) -> Any:
        try:
            ctx.continue_as_new("many")
        except TypeError as error:
            return str(error)

    assert "'n' of body()" in play(body, 1).result


def test_arguments_that_cannot_be_stored_are_refused_at_the_call(play: Any) -> None:
    async def body(ctx: Context, n: Any) -> Any:
        try:
            ctx.continue_as_new(object())
        except TypeError as error:
            return str(error)

    assert "'n' of body()" in play(body, 1).result
