"""`ctx.rpc`: a durable invocation of its own, of a workflow, a step or a name, here or somewhere else."""

from __future__ import annotations

from typing import Any

import pytest

from everstep import Context, InvalidId, NondeterminismError, UnknownFunction
from everstep.promise import State
from tests.core.play import Play, rpc, step, workflow_named


def work(number: int) -> int:
    raise AssertionError("the engine runs no step")


async def factorial(ctx: Context, n: int) -> int:
    if n <= 1:
        return 1
    return n * await ctx.options(id=f"factorial-{n - 1}").rpc("factorial", n - 1)


def test_a_workflow_by_name(play: Any) -> None:
    async def body(ctx: Context) -> int:
        return await ctx.rpc("factorial", 3)

    live = play(body, workflows=[factorial])
    assert live.commands() == ["r.1 rpc of factorial(3)"]
    assert live.tree == "r.1"
    live.settle("r.1", 6)
    assert live.result == 6


def test_a_workflow_itself_and_a_step(play: Any) -> None:
    async def body(ctx: Context) -> list[int]:
        first, second = ctx.rpc(workflow_named(ctx, "factorial"), 3), ctx.rpc(work, 4)
        return [await first, await second]

    live = play(body, workflows=[factorial], steps=[work])
    assert live.commands() == ["r.1 rpc of factorial(3)", "r.2 rpc of work(4)"]
    live.settle("r.2", 4)
    live.settle("r.1", 6)
    assert live.result == [6, 4]


def test_a_name_of_its_own_keeps_the_position(play: Any) -> None:
    live = play(factorial, 3, workflows=[])
    assert live.commands() == []
    assert "factorial" in live.end()

    async def root(ctx: Context, n: int) -> int:
        return await ctx.options(id=f"factorial-{n}").rpc("factorial", n)

    named = play(root, 3, workflows=[factorial])
    assert named.commands() == ["r.1 rpc of factorial(3) as factorial-3"]
    named.settle("r.1", 6)
    assert named.result == 6


def test_a_run_with_a_name_of_its_own_is_shared_work(play: Any) -> None:
    async def body(ctx: Context) -> int:
        return await ctx.options(id="shared").run(work, 4)

    live = play(body, steps=[work])
    assert live.commands() == ["r.1 rpc of work(4) as shared"]
    live.settle("r.1", 5)
    assert live.result == 5


def test_a_name_that_is_carried_out_elsewhere_need_not_be_known(play: Any) -> None:
    async def body(ctx: Context) -> Any:
        return await ctx.options(target="poll://gpu").rpc("train", {"layers": 3}, epochs=2)

    live = play(body)
    assert live.commands() == ["r.1 rpc of train({'layers': 3}, epochs=2)"]
    live.settle("r.1", {"loss": 0.1})
    assert live.result == {"loss": 0.1}


def test_an_unknown_name_is_refused_at_the_call_naming_it_and_what_there_is(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            ctx.rpc("factorail", 3)
        except UnknownFunction as error:
            return str(error)
        return "accepted"

    live = play(body, workflows=[factorial])
    assert live.commands() == []
    assert "'factorail'" in live.result
    assert "factorial" in live.result


def test_a_function_that_nobody_could_find_again_is_refused(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            ctx.rpc(work, 3)
        except UnknownFunction as error:
            return str(error)
        return "accepted"

    assert "work" in play(body).result


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((), {}), ((1, 2), {}), ((1,), {"m": 2}), ((object(),), {})],
    ids=["missing", "too many", "misspelt", "no JSON"],
)
def test_arguments_that_do_not_fit_are_refused_at_the_call(play: Any, arguments: Any, named: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            ctx.rpc("factorial", *arguments, **named)
        except TypeError as error:
            return str(error)
        return "accepted"

    live = play(body, workflows=[factorial])
    assert live.commands() == []
    assert "factorial" in live.result


def test_an_argument_of_another_type_is_refused_at_the_call(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            ctx.rpc("factorial", "three")
        except TypeError as error:
            return str(error)
        return "accepted"

    assert "'n' of factorial()" in play(body, workflows=[factorial]).result


@pytest.mark.parametrize("id", ["", "a.b", "x" * 1001, "a\0b"])
def test_a_bad_name_is_refused(play: Any, id: str) -> None:
    async def body(ctx: Context) -> str:
        try:
            ctx.options(id=id)
        except InvalidId as error:
            return str(error)
        return "accepted"

    assert "options(id=)" in play(body).result


def test_a_version_is_chosen_and_kept_in_the_call(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            await ctx.options(version=7).rpc("factorial", 3)
        except UnknownFunction as error:
            return str(error)
        return "accepted"

    assert "version 7" in play(body, workflows=[factorial]).result


def test_a_failure_of_the_other_side_is_an_exception_here(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            await ctx.rpc("factorial", 3)
        except ZeroDivisionError as error:
            return str(error)
        return "fine"

    live = play(body, workflows=[factorial])
    live.fail("r.1", ZeroDivisionError("by zero"))
    assert live.result == "by zero"


def test_past_its_deadline(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            await ctx.options(timeout=3).rpc("factorial", 3)
        except TimeoutError:
            return "late"
        return "fine"

    live = play(body, workflows=[factorial])
    live.settle("r.1", state=State.TIMEDOUT)
    assert live.result == "late"


async def caller(ctx: Context) -> int:
    return await ctx.rpc("factorial", 3) + await ctx.run(work, 1)


@pytest.mark.parametrize(
    ("given", "recorded", "current"),
    [
        ({"journal": [step("r.1", "factorial", 3)]}, "step factorial(3)", "rpc of factorial(3)"),
        ({"journal": [rpc("r.1", "factorial", 4)]}, "rpc of factorial(4)", "rpc of factorial(3)"),
        ({"pending": [rpc("r.1", "factorial", 4)]}, "rpc of factorial(4)", "rpc of factorial(3)"),
        ({"pending": [rpc("r.1", "fibonacci", 3)]}, "rpc of fibonacci(3)", "rpc of factorial(3)"),
        ({"pending": [rpc("r.1", "factorial", 3), rpc("r.2", "work", 1)]}, "rpc of work(1)", "no such operation"),
        ({"journal": [rpc("r.1", "factorial", 3, value=6)], "pending": [rpc("r.2", "work", 1)]}, "rpc of", "step work"),
    ],
    ids=["was step", "arguments", "pending arguments", "pending function", "removed", "to step"],
)
def test_another_call_than_the_record_says_is_refused_with_both_sides(given: Any, recorded: str, current: str) -> None:
    with pytest.raises(NondeterminismError) as caught:
        Play(caller, workflows=[factorial], **given)
    assert caught.value.recorded.startswith(recorded)
    assert caught.value.current.startswith(current)


def test_a_call_that_is_pending_is_asked_for_again_so_that_the_driver_can_match_it(play: Any) -> None:
    again = Play(caller, workflows=[factorial], pending=[rpc("r.1", "factorial", 3)])
    assert again.commands() == ["r.1 rpc of factorial(3)"]
