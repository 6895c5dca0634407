"""Rule P5: whether a body waits for all or for any is read off asyncio's own callbacks, and so pinned for each Python.

A wrong `any` costs an idle replay; a wrong `all` hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from everstep import Context
from everstep.promise import State, Tree, satisfied
from tests.core.play import workflow_named


def work(*_: Any) -> Any:
    raise AssertionError("the engine runs no step")


async def one(ctx: Context) -> None:
    await ctx.run(work)


async def gather(ctx: Context) -> None:
    await asyncio.gather(ctx.run(work), ctx.run(work))


async def gather_with_exceptions(ctx: Context) -> None:
    await asyncio.gather(ctx.run(work), ctx.run(work), return_exceptions=True)


async def gather_of_one(ctx: Context) -> None:
    await asyncio.gather(ctx.run(work))


async def wait_all(ctx: Context) -> None:
    await asyncio.wait([ctx.run(work), ctx.run(work)])


async def wait_exception(ctx: Context) -> None:
    await asyncio.wait([ctx.run(work), ctx.run(work)], return_when=asyncio.FIRST_EXCEPTION)


async def wait_first(ctx: Context) -> None:
    await asyncio.wait([ctx.run(work), ctx.run(work)], return_when=asyncio.FIRST_COMPLETED)


async def wait_with_timeout(ctx: Context) -> None:
    await asyncio.wait([ctx.run(work), ctx.run(work)], timeout=5)


async def nested(ctx: Context) -> None:
    await asyncio.gather(asyncio.gather(ctx.run(work), ctx.run(work)), ctx.run(work))


async def task_group(ctx: Context) -> None:
    async def part() -> None:
        await ctx.run(work)

    async with asyncio.TaskGroup() as group:
        group.create_task(part())
        group.create_task(part())


async def gathered_tasks(ctx: Context) -> None:
    async def part() -> None:
        await ctx.run(work)
        await ctx.run(work)

    await asyncio.gather(part(), part())


async def as_completed(ctx: Context) -> None:
    for next in asyncio.as_completed([ctx.run(work), ctx.run(work)]):
        await next


async def shield(ctx: Context) -> None:
    await asyncio.shield(ctx.run(work))


async def gather_under_timeout(ctx: Context) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(ctx.run(work), ctx.run(work))


async def two_gathers(ctx: Context) -> None:
    async def part() -> None:
        await asyncio.gather(ctx.run(work), ctx.run(work))

    async with asyncio.TaskGroup() as group:
        group.create_task(part())
        group.create_task(part())


async def shared(ctx: Context) -> None:
    common = ctx.run(work)
    await asyncio.gather(asyncio.gather(common, ctx.run(work)), asyncio.gather(common, ctx.run(work)))


async def gather_and_callback(ctx: Context) -> None:
    first = ctx.run(work)
    first.add_done_callback(lambda _: None)
    await asyncio.gather(first, ctx.run(work))


async def gather_with_sleep(ctx: Context) -> None:
    await asyncio.gather(ctx.sleep(5), ctx.run(work))


def a_list(ctx: Context) -> Any:
    yield [ctx.run(work), ctx.run(work)]


TREES: list[tuple[Callable[..., Any], Tree]] = [
    (one, "r.1"),
    (gather, ("try", "r.1", "r.2")),
    (gather_with_exceptions, ("all", "r.1", "r.2")),
    (gather_of_one, "r.1"),
    (wait_all, ("all", "r.1", "r.2")),
    (wait_exception, ("try", "r.1", "r.2")),
    (wait_first, ("any", "r.1", "r.2")),
    (wait_with_timeout, ("any", "r.3", ("all", "r.1", "r.2"))),
    (nested, ("any", "r.3", ("try", "r.1", "r.2"))),
    (task_group, ("any", "r.1", "r.2")),
    (gathered_tasks, ("any", "r.1", "r.2")),
    (as_completed, ("any", "r.1", "r.2")),
    (shield, "r.1"),
    (gather_under_timeout, ("any", "r.1", ("try", "r.2", "r.3"))),
    (two_gathers, ("any", ("try", "r.1", "r.2"), ("try", "r.3", "r.4"))),
    (shared, ("any", ("try", "r.1", "r.2"), ("try", "r.1", "r.3"))),
    (gather_and_callback, ("any", "r.1", ("try", "r.1", "r.2"))),
    (gather_with_sleep, ("try", "r.1", "r.2")),
    (a_list, ("try", "r.1", "r.2")),
]


def shape(tree: Tree) -> Any:
    """A tree without the order of its branches."""
    return tree if isinstance(tree, str) else (tree[0], frozenset(shape(part) for part in tree[1:]))


@pytest.mark.parametrize(("body", "tree"), TREES, ids=[body.__name__ for body, _ in TREES])
def test_p5_the_await_tree(play: Any, body: Callable[..., Any], tree: Tree) -> None:
    assert shape(play(body).tree) == shape(tree)


def settled(*ids: str, rejected: bool = False) -> Callable[[str], State]:
    return lambda id: (State.REJECTED if rejected else State.RESOLVED) if id in ids else State.PENDING


def test_p5_gather_is_satisfied_by_all_or_by_one_failure() -> None:
    tree: Tree = ("try", "a", "b")
    assert not satisfied(tree, settled("a"))
    assert satisfied(tree, settled("a", "b"))
    assert satisfied(tree, settled("b", rejected=True))


def test_p5_return_exceptions_is_satisfied_by_all_alone() -> None:
    tree: Tree = ("all", "a", "b")
    assert not satisfied(tree, settled("b", rejected=True))
    assert satisfied(tree, settled("a", "b", rejected=True))


def test_p5_a_gather_that_failed_waits_for_nothing_more(play: Any) -> None:
    async def body(ctx: Context) -> None:
        try:
            await asyncio.gather(ctx.run(work), ctx.run(work))
        except ValueError:
            await ctx.run(work, "next")

    live = play(body)
    live.fail("r.1", ValueError())
    assert live.tree == "r.3"


def test_p5_what_is_settled_is_no_longer_waited_for(play: Any) -> None:
    live = play(nested)
    live.settle("r.1")
    assert shape(live.tree) == shape(("any", "r.2", "r.3"))


@pytest.mark.parametrize("body", [body for body, _ in TREES], ids=[body.__name__ for body, _ in TREES])
def test_p5_a_tree_is_satisfied_whenever_a_delivery_makes_the_body_act(play: Any, body: Callable[..., Any]) -> None:
    """Settle one after the other, in both orders: the body never gets further while its tree says it cannot."""
    for order in (1, -1):
        live = play(body)
        live.commands()
        arrived: list[str] = []
        while not live.body.returned and live.waiting:
            tree, waiting = live.tree, sorted(live.waiting)[::order]
            id = next(id for id in waiting if id not in arrived)
            arrived.append(id)
            if id in live.body.timers:
                live.fire(id)
            else:
                live.settle(id)
            acted = live.body.returned or live.commands() or live.tree != tree
            if acted and live.body.returned:
                assert satisfied(tree, settled(*arrived))
            if live.body.returned:
                break


def test_leftovers_of_a_body_that_has_returned_are_waited_for_together(play: Any) -> None:
    async def body(ctx: Context) -> str:
        ctx.run(work)
        ctx.rpc("work")
        ctx.promise()
        ctx.sleep(9)
        return "done"

    live = play(body, steps=[work])
    assert live.body.returned
    assert live.body.leftovers() == ["r.1", "r.2"]
    assert [op.key for op in live.body.abandoned()] == ["r.3"]
    assert live.tree == ("all", "r.1", "r.2")


def test_an_inline_child_left_behind_waits_for_what_its_own_body_waits_for(play: Any) -> None:
    async def kid(ctx: Context) -> int:
        await ctx.sleep(5)
        return await ctx.run(work)

    async def parent(ctx: Context) -> str:
        ctx.run(workflow_named(ctx, "kid"))
        return "done"

    live = play(parent, workflows=[kid])
    assert live.commands() == ["r.1 child workflow kid()", "r.1.1 timer at 5000"]
    assert live.body.leftovers() == ["r.1"]
    assert live.tree == "r.1.1"
    live.fire("r.1.1")
    assert live.commands() == ["r.1.2 step work()"]
    assert shape(live.tree) == "r.1.2"
    live.settle("r.1.2", 4)
    assert live.commands() == ["r.1 ended resolved 4"]
    live.settle("r.1", 4)
    assert live.body.leftovers() == []
