"""`ctx.promise`: its id is final before anything is awaited, and whatever settles it arrives as a value or an error."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from everstep import Context, InvalidArgument, InvalidId, PromiseCanceled, PromiseTimedOut
from everstep.promise import State
from tests.core.play import Delivery, Play, promise


def mail(*_: Any) -> Any:
    raise AssertionError("the engine runs no step")


async def approval(ctx: Context) -> Any:
    wanted = ctx.promise(timeout=timedelta(days=30), tags={"team": "ops"})
    await ctx.run(mail, wanted.id)
    return await wanted


def test_the_id_is_final_before_anything_is_awaited(play: Any) -> None:
    live = play(approval)
    assert live.commands() == ["r.1 a promise", "r.2 step mail('r.1')"]


def test_options_reach_the_promise(play: Any) -> None:
    live = play(approval)
    op = live.body.take_new()[0]
    assert op.options.timeout == 30 * 86_400_000
    assert op.options.tags == {"team": "ops"}


def test_a_value_from_outside(play: Any) -> None:
    live = play(approval)
    live.settle("r.2")
    assert live.tree == "r.1"
    live.settle("r.1", {"by": "kim"})
    assert live.result == {"by": "kim"}


def test_it_may_be_settled_before_anybody_waits_for_it(play: Any) -> None:
    live = play(approval)
    live.settle("r.1", True)
    assert live.tree == "r.2"
    live.settle("r.2")
    assert live.result is True


def test_rejected_from_outside(play: Any) -> None:
    live = play(approval)
    live.settle("r.2")
    live.fail("r.1", PermissionError("no"))
    assert live.end() == "rejected PermissionError('no')"


@pytest.mark.parametrize(
    ("state", "error"), [(State.CANCELED, PromiseCanceled), (State.TIMEDOUT, PromiseTimedOut)], ids=["canceled", "late"]
)
def test_cancelled_or_past_its_deadline(play: Any, state: State, error: type[Exception]) -> None:
    async def body(ctx: Context) -> str:
        try:
            await ctx.promise()
        except error as caught:
            return str(caught)
        return "settled"

    live = play(body)
    live.settle("r.1", state=state)
    assert "r.1" in live.result


def test_a_name_of_its_own(play: Any) -> None:
    async def body(ctx: Context) -> Any:
        wanted = ctx.promise("invoice 7/ä")
        return [wanted.id, await wanted]

    live = play(body)
    assert live.commands() == ["r.1 a promise named 'invoice 7/ä' as invoice 7/ä"]
    live.settle("r.1", 3)
    assert live.result == ["invoice 7/ä", 3]


def test_options_may_name_it_too(play: Any) -> None:
    async def body(ctx: Context) -> None:
        await ctx.options(id="invoice", timeout=5, tags={"a": "b"}).promise()

    live = play(body)
    (op,) = live.body.take_new()
    assert (op.key, op.id, op.options.timeout, op.options.tags) == ("r.1", "invoice", 5000, {"a": "b"})
    live.settle("r.1")


@pytest.mark.parametrize("id", ["", "a.b", ".", "x" * 1001, "a\0b", "ä" * 501, 7, "\ud800"])
def test_a_bad_name_is_refused(play: Any, id: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            ctx.promise(id)
        except InvalidId as error:
            return str(error)
        return "accepted"

    live = play(body)
    assert live.commands() == []
    assert "promise(id=)" in live.result


@pytest.mark.parametrize("tags", [{"a": 1}, {1: "a"}, {"resonate:target": "x"}, {"everstep:x": "y"}])
def test_bad_tags_are_refused(play: Any, tags: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            ctx.promise(tags=tags)
        except InvalidArgument as error:
            return str(error)
        return "accepted"

    assert "tag" in play(body).result


def test_the_winner_of_a_race_is_the_same_on_every_replay(play: Any) -> None:
    async def body(ctx: Context) -> str:
        cancel, window = ctx.promise("cancel"), ctx.sleep(5)
        done, _ = await asyncio.wait([cancel, window], return_when=asyncio.FIRST_COMPLETED)
        return "canceled" if cancel in done else "confirmed"

    first = play(body)
    first.settle("r.1")
    assert first.result == "canceled"

    second = play(body)
    second.fire()
    assert second.result == "confirmed"

    named = promise("r.1")._replace(args=["cancel"])
    timer = Delivery("r.2", "timer", "", [], {}, State.RESOLVED, None, 5000)
    assert Play(body, journal=[named, timer]).result == "canceled"
    assert Play(body, journal=[timer, named]).result == "confirmed"


def test_a_name_that_changed_is_refused() -> None:
    async def body(ctx: Context) -> None:
        await ctx.promise("new")

    with pytest.raises(Exception, match=r"'old'.*'new'"):
        Play(body, journal=[promise("r.1")._replace(args=["old"])])
