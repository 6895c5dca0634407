"""A workflow passed to `ctx.run` is an inline child: a scope of its own, its result one record of the parent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everstep import Context, InvalidArgument, NondeterminismError, Retry
from tests.core.play import Play, child, step, workflow_named


def work(*_: Any) -> Any:
    raise AssertionError("the engine runs no step")


async def kid(ctx: Context, name: str) -> str:
    first = await ctx.run(work, name, 1)
    return f"{ctx.id}:{first}{await ctx.run(work, name, 2)}"


async def parent(ctx: Context) -> list[str]:
    kids = workflow_named(ctx, "kid")
    return await asyncio.gather(ctx.run(kids, "a"), ctx.run(kids, "b"))


def test_each_child_counts_for_itself(play: Any) -> None:
    live = play(parent, workflows=[kid])
    assert live.commands() == [
        "r.1 child workflow kid('a')",
        "r.2 child workflow kid('b')",
        "r.1.1 step work('a', 1)",
        "r.2.1 step work('b', 1)",
    ]
    live.settle("r.2.1", "x")
    assert live.commands() == ["r.2.2 step work('b', 2)"]
    live.settle("r.1.1", "y")
    live.settle("r.2.2", "z")
    assert live.commands() == ["r.1.2 step work('a', 2)", "r.2 ended resolved 'r.2:xz'"]
    live.settle("r.2", "r.2:xz")
    live.settle("r.1.2", "w")
    assert live.commands() == ["r.1 ended resolved 'r.1:yw'"]
    live.settle("r.1", "r.1:yw")
    assert live.result == ["r.1:yw", "r.2:xz"]


def test_a_recorded_child_is_not_carried_out_again(play: Any) -> None:
    given = [
        step("r.1.1", "work", "a", 1, value="y"),
        step("r.1.2", "work", "a", 2, value="w"),
        child("r.1", "kid", "a", value="r.1:yw"),
    ]
    live = play(parent, workflows=[kid], journal=given)
    assert live.commands() == ["r.2 child workflow kid('b')", "r.2.1 step work('b', 1)"]


def test_a_failure_of_the_child_is_the_failure_of_the_operation(play: Any) -> None:
    async def failing(ctx: Context) -> None:
        await ctx.run(work)
        raise KeyError("lost")

    async def body(ctx: Context) -> str:
        try:
            await ctx.run(workflow_named(ctx, "failing"))
        except KeyError as error:
            return f"caught {error}"
        return "fine"

    live = play(body, workflows=[failing])
    live.commands()
    live.settle("r.1.1")
    assert live.commands() == ["r.1 ended rejected KeyError('lost')"]
    live.fail("r.1", KeyError("lost"))
    assert live.result == "caught 'lost'"


def test_a_child_has_retries_of_its_own(play: Any) -> None:
    async def flaky(ctx: Context) -> int:
        if ctx.attempt < 3:
            raise ValueError
        return ctx.attempt

    async def body(ctx: Context) -> int:
        again = ctx._body.app.workflow(name="again", retry=Retry(attempts=3, first=1, factor=2))(flaky)
        return await ctx.run(again)

    live = play(body)
    live.commands()
    live.fire("r.1.1")
    assert live.commands() == ["r.1.2 timer at 3000"]
    live.fire("r.1.2")
    assert live.commands() == ["r.1 ended resolved 3"]
    live.settle("r.1", 3)
    assert live.result == 3


def test_children_of_children(play: Any) -> None:
    async def countdown(ctx: Context, n: int) -> int:
        if n == 0:
            return 0
        return 1 + await ctx.run(workflow_named(ctx, "countdown"), n - 1)

    live = play(countdown, 2, workflows=[countdown])
    assert live.commands() == [
        "r.1 child workflow countdown(1)",
        "r.1.1 child workflow countdown(0)",
        "r.1.1 ended resolved 0",
    ]
    live.settle("r.1.1", 0)
    assert live.commands() == ["r.1 ended resolved 1"]
    live.settle("r.1", 1)
    assert live.result == 2


def test_a_child_cannot_change_a_value_of_its_parent(play: Any) -> None:
    async def greedy(ctx: Context, items: list[int]) -> int:
        items.clear()
        return 0

    async def body(ctx: Context) -> list[int]:
        mine = [1, 2]
        await ctx.run(workflow_named(ctx, "greedy"), mine)
        return mine

    live = play(body, workflows=[greedy])
    live.commands()
    live.settle("r.1", 0)
    assert live.result == [1, 2]


def test_continue_as_new_is_for_runs_of_their_own(play: Any) -> None:
    async def endless(ctx: Context, n: int) -> Any:
        return ctx.continue_as_new(n + 1)

    async def body(ctx: Context) -> Any:
        return await ctx.run(workflow_named(ctx, "endless"), 1)

    live = play(body, workflows=[endless])
    (command,) = live.commands()[1:]
    assert command.startswith("r.1 ended rejected InvalidArgument")
    live.fail("r.1", InvalidArgument("endless() runs inline"))


def test_asyncio_timers_count_in_the_scope_of_the_child(play: Any) -> None:
    async def sleepy(ctx: Context) -> None:
        await asyncio.sleep(1)

    async def body(ctx: Context) -> None:
        await asyncio.gather(ctx.run(workflow_named(ctx, "sleepy")), asyncio.sleep(2))

    live = play(body, workflows=[sleepy])
    assert sorted(live.commands()) == ["r.1 child workflow sleepy()", "r.1.1 timer at 1000", "r.2 timer at 2000"]
    live.fire()
    live.commands()
    live.settle("r.1")
    live.fire()
    assert live.body.returned


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        ([child("r.1", "kid", "z")], "child workflow kid('z')"),
        ([step("r.1", "kid", "a")], "step kid('a')"),
        ([step("r.1.1", "work", "a", 9)], "step work('a', 9)"),
        ([step("r.1.3", "work", "a", 3)], "step work('a', 3)"),
    ],
    ids=["argument", "kind", "inside", "inside, removed"],
)
def test_another_child_than_the_record_says_is_refused(given: Any, recorded: str) -> None:
    with pytest.raises(NondeterminismError) as caught:
        Play(parent, workflows=[kid], journal=given)
    assert caught.value.recorded == recorded
