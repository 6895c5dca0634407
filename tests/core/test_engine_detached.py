"""`ctx.detached`: a new root nobody waits for; its id is known at once."""

from __future__ import annotations

from typing import Any

from everstep import Context
from everstep.ids import detached_id
from tests.core.play import workflow_named


async def game(ctx: Context, number: int) -> str:
    following = ctx.detached("game", number + 1)
    return following.id


def test_the_body_ends_and_the_new_root_is_still_to_be_started(play: Any) -> None:
    id = detached_id("r", "r.1")
    live = play(game, 1, workflows=[game])
    assert live.commands() == [f"r.1 detached game(2) as {id}"]
    assert live.result == id
    assert live.tree == ("all", "r.1")


def test_awaiting_gives_the_id_of_the_new_root(play: Any) -> None:
    async def body(ctx: Context) -> str:
        return await ctx.detached(workflow_named(ctx, "game"), 1)

    live = play(body, workflows=[game])
    id = detached_id("r", "r.1")
    assert live.commands() == [f"r.1 detached game(1) as {id}"]
    live.settle("r.1", id)
    assert live.result == id


def test_a_name_of_its_own(play: Any) -> None:
    async def body(ctx: Context) -> str:
        return await ctx.options(id="game-7", timeout=5, tags={"a": "b"}).detached("game", 7)

    live = play(body, workflows=[game])
    (op,) = live.body.take_new()
    assert (op.id, op.options.timeout, op.options.tags) == ("game-7", 5000, {"a": "b"})
    live.settle("r.1", "game-7")
    assert live.result == "game-7"


def test_a_result_annotation_of_the_workflow_does_not_apply_to_the_id(play: Any) -> None:
    async def counting(ctx: Context) -> int:
        return 1

    async def body(ctx: Context) -> str:
        return await ctx.detached("counting")

    live = play(body, workflows=[counting])
    live.settle("r.1", "some-id")
    assert live.result == "some-id"


def test_arguments_are_checked_at_the_call(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            ctx.detached("game", "seven")
        except TypeError as error:
            return str(error)
        return "accepted"

    live = play(body, workflows=[game])
    assert live.commands() == []
    assert "'number' of game()" in live.result
