"""`ctx.run`: a step is asked for once, recorded values come back as they were, and failures keep their type."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from everstep import (
    App,
    Context,
    DecodeError,
    NondeterminismError,
    NotSerializable,
    PayloadTooLarge,
    PromiseTimedOut,
    Retry,
)
from everstep.promise import State
from tests.core.play import Play, failed, promise, say, step, timer


class CardDeclinedError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"declined with {code}")
        self.code = code


def charge(order: str, cents: int) -> str:
    raise AssertionError("the engine runs no step")


def ship(order: str, *, fast: bool = False) -> int:
    raise AssertionError("the engine runs no step")


async def order(ctx: Context, number: str) -> str:
    receipt = await ctx.run(charge, number, 4200)
    parcels = await ctx.run(ship, number, fast=True)
    return f"{receipt}/{parcels}"


def test_the_first_life_asks_for_the_first_step_and_waits(play: Any) -> None:
    body = play(order, "o-17")

    assert body.commands() == ["r.1 step charge('o-17', 4200)"]
    assert body.tree == "r.1"
    assert body.end() == "runs"


def test_a_recorded_step_is_not_asked_for_again(play: Any) -> None:
    body = play(order, "o-17", journal=[step("r.1", "charge", "o-17", 4200, value="paid")])

    assert body.commands() == ["r.2 step ship('o-17', fast=True)"]


def test_a_full_journal_leads_to_the_result_and_to_no_command(play: Any) -> None:
    given = [step("r.1", "charge", "o-17", 4200, value="paid"), step("r.2", "ship", "o-17", fast=True, value=2)]

    body = play(order, "o-17", journal=given)

    assert body.commands() == []
    assert body.result == "paid/2"


def test_a_value_that_arrives_lets_the_body_go_on(play: Any) -> None:
    body = play(order, "o-17")
    body.commands()

    body.settle("r.1", "paid")

    assert body.commands() == ["r.2 step ship('o-17', fast=True)"]


def test_operations_start_when_called_in_the_order_of_calls(play: Any) -> None:
    async def both(ctx: Context) -> list[Any]:
        second = ctx.run(ship, "b")
        first = ctx.run(charge, "a", 1)
        return [await first, await second]

    body = play(both)

    assert body.commands() == ["r.1 step ship('b')", "r.2 step charge('a', 1)"]
    assert body.tree == "r.2"
    body.settle("r.1", 7)
    assert body.commands() == []
    assert body.tree == "r.2"
    body.settle("r.2", "x")
    assert body.result == ["x", 7]


def test_a_failure_keeps_type_message_and_attributes_live_and_replayed(play: Any) -> None:
    async def careful(ctx: Context) -> str:
        try:
            return await ctx.run(charge, "o", 1)
        except CardDeclinedError as error:
            return f"{error} {error.code}"

    live = play(careful)
    live.fail("r.1", CardDeclinedError(51))
    replayed = play(careful, journal=[failed(step("r.1", "charge", "o", 1), CardDeclinedError(51))])

    assert live.result == replayed.result == "declined with 51 51"


def test_a_failure_nobody_catches_is_the_runs_failure(play: Any) -> None:
    body = play(order, "o-17")

    body.fail("r.1", CardDeclinedError(51))

    assert body.end() == "rejected CardDeclinedError('declined with 51')"


def test_a_step_past_its_deadline_is_a_timeout(play: Any) -> None:
    async def impatient(ctx: Context) -> str:
        try:
            return await ctx.options(timeout=1).run(charge, "o", 1)
        except TimeoutError as error:
            return type(error).__name__

    body = play(impatient)
    body.settle("r.1", state=State.TIMEDOUT)

    assert body.result == PromiseTimedOut.__name__


@dataclass
class Parcel:
    when: datetime
    price: Decimal
    label: bytes
    id: UUID


def pack(parcel: Parcel) -> Parcel:
    raise AssertionError


def test_values_come_back_in_their_annotated_types(play: Any) -> None:
    sent = Parcel(datetime(2026, 1, 2, tzinfo=UTC), Decimal("9.90"), b"\0\1", UUID(int=7))

    async def body(ctx: Context) -> bool:
        back = await ctx.run(pack, sent)
        return back == sent and back is not sent

    one = play(body)
    (op,) = one.body.ops.values()
    stored = one.app.codec.decode(op.param)[1][0]
    one.settle("r.1", stored)

    assert one.result is True


def test_arguments_are_compared_in_their_stored_form(play: Any) -> None:
    sent = Parcel(datetime(2026, 1, 2, tzinfo=UTC), Decimal("9.90"), b"\0\1", UUID(int=7))

    async def body(ctx: Context) -> None:
        await ctx.run(pack, sent)

    stored = {"when": "2026-01-02T00:00:00+00:00", "price": "9.90", "label": "AAE=", "id": str(UUID(int=7))}

    first = play(body)
    (op,) = first.body.ops.values()
    stored = first.app.codec.decode(op.param)[1][0]
    assert play(body, journal=[step("r.1", "pack", stored, value=stored)]).end().startswith("resolved")


def test_a_partial_and_a_lambda_have_names(play: Any) -> None:
    async def body(ctx: Context) -> None:
        await asyncio.gather(ctx.run(functools.partial(charge, "o"), 5), ctx.run(lambda: 1))

    assert play(body).commands() == ["r.1 step charge(5)", "r.2 step <lambda>()"]


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        ((1, 2, 3), {}, "charge"),
        ((), {}, "order"),
        (("o",), {"centz": 1}, "centz"),
        (("o", 1), {"order": "p"}, "order"),
    ],
    ids=["too many", "missing", "misspelt", "twice"],
)
def test_arguments_that_do_not_fit_are_refused_at_the_call(
    play: Any, arguments: tuple[Any, ...], named: dict[str, Any], message: str
) -> None:
    async def body(ctx: Context) -> str:
        try:
            ctx.run(charge, *arguments, **named)
        except TypeError as error:
            return str(error)
        return "accepted"

    one = play(body)

    assert one.commands() == []
    assert message in one.result
    assert "charge" in one.result


def test_an_argument_that_cannot_be_stored_is_refused_naming_the_parameter(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            ctx.run(charge, "o", object())  # type: ignore[arg-type]
        except NotSerializable as error:
            return str(error)
        return "accepted"

    one = play(body)

    assert one.commands() == []
    assert "'cents'" in one.result
    assert "charge" in one.result


def test_a_refused_call_takes_its_number_with_it_on_every_replay(play: Any) -> None:
    async def body(ctx: Context) -> Any:
        with pytest.raises(NotSerializable):
            ctx.run(charge, "o", object())  # type: ignore[arg-type]
        return await ctx.run(charge, "o", 1)

    live = play(body)
    assert live.commands() == ["r.2 step charge('o', 1)"]
    live.settle("r.2", "ok")


def test_too_large_arguments_are_refused_naming_the_function(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            ctx.run(charge, "x" * 30_000_000, 1)
        except PayloadTooLarge as error:
            return str(error)
        return "accepted"

    assert "charge" in play(body).result


def test_what_is_no_function_is_refused(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            ctx.run(17)  # type: ignore[call-overload]
        except ValueError as error:
            return str(error)
        return "accepted"

    assert "int" in play(body).result


def test_a_coroutine_instead_of_a_function_is_refused_with_the_way_out(play: Any) -> None:
    async def fetch() -> int:
        return 1

    async def body(ctx: Context) -> str:
        started = fetch()
        try:
            ctx.run(started)  # type: ignore[call-overload]
        except ValueError as error:
            return str(error)
        finally:
            started.close()
        return "accepted"

    assert "not coroutine: ctx.run(fetch, ...)" in play(body).result


def test_a_workflow_that_fails_starts_over_by_its_policy_with_ids_going_on(play: Any) -> None:
    async def flaky(ctx: Context) -> int:
        value = await ctx.run(ship, f"try {ctx.attempt}")
        if ctx.attempt == 1:
            raise ValueError("not yet")
        return value

    body = play(flaky, retry=Retry(attempts=2, first=3))
    body.settle("r.1", 1, at=500)
    assert body.commands() == ["r.2 timer at 3500"]

    body.fire("r.2")

    assert body.commands() == ["r.3 step ship('try 2')"]
    body.settle("r.3", 2)
    assert body.result == 2


@pytest.mark.parametrize(
    ("recorded", "sides"),
    [
        (step("r.1", "charge", "o-17", 4300), ("step charge('o-17', 4300)", "step charge('o-17', 4200)")),
        (step("r.1", "refund", "o-17", 4200), ("step refund('o-17', 4200)", "step charge('o-17', 4200)")),
        (promise("r.1"), ("a promise", "step charge('o-17', 4200)")),
        (timer("r.1", 5), ("a timer", "step charge('o-17', 4200)")),
        (step("r.7", "ship"), ("step ship()", "no such operation")),
    ],
    ids=["argument", "function", "promise", "timer", "unknown"],
)
def test_a_body_that_does_something_else_than_the_record_is_refused_with_both_sides(
    recorded: Any, sides: tuple[str, str]
) -> None:
    with pytest.raises(NondeterminismError) as caught:
        Play(order, "o-17", journal=[recorded])

    assert caught.value.id == recorded.id
    assert (caught.value.recorded, caught.value.current) in [sides, (sides[0], sides[1] + " at this point")]


def test_nondeterminism_cannot_be_swallowed() -> None:
    async def stubborn(ctx: Context) -> str:
        try:
            return await ctx.run(charge, "o", 1)
        except BaseException:
            return "swallowed"

    with pytest.raises(NondeterminismError):
        Play(stubborn, journal=[step("r.1", "refund", "o", 1)])


def test_a_result_that_does_not_fit_its_annotation_is_a_matter_of_the_store_not_of_the_body() -> None:
    async def stubborn(ctx: Context) -> str:
        try:
            return str(await ctx.run(ship, "o"))
        except Exception:
            return "swallowed"

    with pytest.raises(DecodeError, match="ship"):
        Play(stubborn, journal=[step("r.1", "ship", "o", value="two")])


def test_a_body_says_what_it_did_only_once(play: Any) -> None:
    async def talk(ctx: Context) -> None:
        for _ in range(3):
            say(ctx, await ctx.run(ship, "o"))

    body = play(talk)
    body.settle("r.1", 1)
    body.settle("r.2", 2)
    assert body.trace == [1, 2]


def test_steps_of_one_name_are_registered_once() -> None:
    app = App("shop")
    app.step(charge)
    with pytest.raises(ValueError, match=r"'charge'.*test_engine_run.py:\d+"):
        app.step(charge)


def test_a_function_that_a_body_makes_is_not_kept_for_ever() -> None:
    from everstep.testing import Simulation

    app = App("local")

    @app.workflow
    async def body(ctx: Context, count: int) -> int:
        total = 0
        for number in range(count):
            total += await ctx.run(lambda number=number: number)
        return total

    sim = Simulation(app)
    assert sim.run(sim.start(body, 50)) == 1225
    assert len(app._infos) == 1
