"""New code over an old record: reported with both sides, the run kept, and finished once the old code is back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Context, Halted, NondeterminismError, Runtime
from everstep.testing import Simulation
from everstep.testing.simulation import SimHandle

Code = Sequence[tuple[Any, ...]]
DAY = 86_400


class Shop:
    """An App whose workflow does what `code` says today."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.ran: Counter[str] = Counter()
        self.app = app = App("shop")

        @app.step
        def charge(cents: int) -> int:
            self.ran[f"charge {cents}"] += 1
            return cents

        @app.step
        def ship(cents: int) -> int:
            self.ran[f"ship {cents}"] += 1
            return cents

        @app.workflow
        async def slow(ctx: Context, cents: int) -> int:
            await ctx.sleep(DAY)
            return cents

        @app.workflow
        async def quick(ctx: Context, cents: int) -> int:
            return cents

        @app.workflow
        async def order(ctx: Context) -> list[Any]:
            return [await self._one(ctx, *one) for one in self.code]

        self.slow, self.quick, self.order, self.charge, self.ship = slow, quick, order, charge, ship

    def _one(self, ctx: Context, kind: str, *args: Any) -> Any:
        match kind:
            case "charge" | "ship":
                return ctx.run(getattr(self, kind), *args)
            case "slow" | "quick":
                return ctx.rpc(kind, *args)
            case "child":
                return ctx.run(self.quick, *args)
            case "sleep":
                return ctx.sleep(*args)
            case "asleep":
                return asyncio.sleep(*args)
            case "promise":
                return ctx.promise(*args)
            case "detached":
                return ctx.detached("quick", *args)
        raise AssertionError(kind)


# The record of these: five operations done, then one that waits.
DONE: Code = [("charge", 1), ("ship", 2), ("sleep", 5), ("quick", 4), ("child", 5)]
WAIT: Code = [("promise",)]
THEN: Code = [("ship", 9)]


def at(position: int, *new: tuple[Any, ...]) -> Code:
    """What was done, with another operation (or none, or two) at a position."""
    return [*DONE[:position], *new, *DONE[position + 1 :], *WAIT, *THEN]


CHANGES: dict[str, tuple[Code, str, str, str]] = {
    # name: new code, position, what the record says, what the code does
    "changed argument": (at(0, ("charge", 100)), "o1.1", "step charge(1)", "step charge(100)"),
    "changed argument of an rpc": (at(3, ("quick", 40)), "o1.4", "rpc of quick(4)", "rpc of quick(40)"),
    "changed argument of a child": (
        at(4, ("child", 50)),
        "o1.5",
        "child workflow quick(5)",
        "child workflow quick(50)",
    ),
    "removed step, first": (at(0), "o1.1", "step charge(1)", "step ship(2)"),
    "removed step, middle": (at(1), "o1.2", "step ship(2)", "a timer"),
    "removed timer": (at(2), "o1.3", "a timer", "rpc of quick(4)"),
    "removed rpc": (at(3), "o1.4", "rpc of quick(4)", "child workflow quick(5)"),
    "removed child, last": (at(4), "o1.5", "child workflow quick(5)", "a promise"),
    "everything removed": ([], "o1.1", "step charge(1)", "a return from the workflow before it"),
    "added step, first": ([("ship", 7), *DONE, *WAIT, *THEN], "o1.1", "step charge(1)", "step ship(7)"),
    "added step, middle": (at(1, ("ship", 7), ("ship", 2)), "o1.2", "step ship(2)", "step ship(7)"),
    "added timer": (at(0, ("sleep", 1), ("charge", 1)), "o1.1", "step charge(1)", "a timer"),
    "added step before what waits": ([*DONE, ("ship", 7), *WAIT, *THEN], "o1.6", "a promise", "step ship(7)"),
    "swapped steps": ([DONE[1], DONE[0], *DONE[2:], *WAIT, *THEN], "o1.1", "step charge(1)", "step ship(2)"),
    "another function": (at(0, ("ship", 1)), "o1.1", "step charge(1)", "step ship(1)"),
    "another workflow": (at(3, ("slow", 4)), "o1.4", "rpc of quick(4)", "rpc of slow(4)"),
    "step to timer": (at(0, ("sleep", 1)), "o1.1", "step charge(1)", "a timer"),
    "step to asyncio's timer": (at(0, ("asleep", 1)), "o1.1", "step charge(1)", "a timer"),
    "step to rpc": (at(0, ("quick", 1)), "o1.1", "step charge(1)", "rpc of quick(1)"),
    "step to child": (at(0, ("child", 1)), "o1.1", "step charge(1)", "child workflow quick(1)"),
    "step to promise": (at(0, ("promise",)), "o1.1", "step charge(1)", "a promise"),
    "step to detached": (at(0, ("detached", 1)), "o1.1", "step charge(1)", "detached quick(1)"),
    "timer to step": (at(2, ("charge", 3)), "o1.3", "a timer", "step charge(3)"),
    "timer to rpc": (at(2, ("quick", 3)), "o1.3", "a timer", "rpc of quick(3)"),
    "timer to promise": (at(2, ("promise",)), "o1.3", "a timer", "a promise"),
    "timer to child": (at(2, ("child", 3)), "o1.3", "a timer", "child workflow quick(3)"),
    "rpc to step": (at(3, ("charge", 4)), "o1.4", "rpc of quick(4)", "step charge(4)"),
    "rpc to timer": (at(3, ("sleep", 1)), "o1.4", "rpc of quick(4)", "a timer"),
    "rpc to child": (at(3, ("child", 4)), "o1.4", "rpc of quick(4)", "child workflow quick(4)"),
    "rpc to promise": (at(3, ("promise",)), "o1.4", "rpc of quick(4)", "a promise"),
    "child to rpc": (at(4, ("quick", 5)), "o1.5", "child workflow quick(5)", "rpc of quick(5)"),
    "child to step": (at(4, ("charge", 5)), "o1.5", "child workflow quick(5)", "step charge(5)"),
    "child to timer": (at(4, ("sleep", 1)), "o1.5", "child workflow quick(5)", "a timer"),
}


def started(code: Code, **options: Any) -> tuple[Shop, Simulation, SimHandle[Any]]:
    shop = Shop(code)
    sim = Simulation(shop.app, **options)
    handle = sim.start(shop.order, id="o1")
    sim.advance(minutes=1)
    assert handle.status() == "pending"
    return shop, sim, handle


def deployed(shop: Shop, sim: Simulation, code: Code) -> None:
    shop.code = code
    sim.cold()


def reported(handle: SimHandle[Any], position: str, recorded: str, current: str) -> None:
    reason = (handle.record().task or pytest.fail("no task")).reason
    assert handle.status() == "pending"
    assert handle.halted, handle.record()
    assert reason is not None
    assert reason.startswith(f"{position}: the record says {recorded}, the code now does {current}"), reason
    with pytest.raises(Halted, match="the record says"):
        handle.result()


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_what_is_recorded_is_reported_and_undone(name: str) -> None:
    new, position, recorded, current = CHANGES[name]
    shop, sim, handle = started([*DONE, *WAIT, *THEN])
    before = shop.ran.copy()

    deployed(shop, sim, new)
    sim.resolve("o1.6", "go")
    sim.advance(days=2)

    reported(handle, position, recorded, current)
    assert shop.ran == before, "nothing ran"
    deployed(shop, sim, [*DONE, *WAIT, *THEN])
    sim.continue_("o1")
    assert sim.run(handle) == [1, 2, None, 4, 5, "go", 9]
    assert shop.ran == before + Counter({"ship 9": 1})


PENDING: dict[str, tuple[tuple[Any, ...], str, Any]] = {
    "timer": (("sleep", 3600), "a timer", None),
    "rpc": (("slow", 4), "rpc of slow(4)", 4),
    "promise": (("promise",), "a promise", "go"),
}
INSTEAD: dict[str, tuple[Code, str]] = {
    "step": ([("charge", 4)], "step charge(4)"),
    "timer": ([("sleep", 3600)], "a timer"),
    "rpc": ([("slow", 4)], "rpc of slow(4)"),
    "another rpc": ([("quick", 4)], "rpc of quick(4)"),
    "promise": ([("promise",)], "a promise"),
    "named promise": ([("promise", "mine")], "a promise named 'mine'"),
    "child": ([("child", 4)], "child workflow quick(4)"),
    "nothing": ([], ""),
}


@pytest.mark.parametrize("followed", [False, True], ids=["at the end", "in the middle"])
@pytest.mark.parametrize(
    ("pending", "instead"), [(pending, instead) for pending in PENDING for instead in INSTEAD if pending != instead]
)
def test_a_change_of_what_is_pending_is_reported_and_undone(pending: str, instead: str, followed: bool) -> None:
    (wait, recorded, value), (new, current) = PENDING[pending], INSTEAD[instead]
    first: Code = [("charge", 1)]
    after: Code = [("ship", 9)] if followed else []
    if not new and followed:
        current = "step ship(9)"
    shop, sim, handle = started([*first, wait, *after])
    before = shop.ran.copy()

    deployed(shop, sim, [*first, *new, *after])
    if pending == "promise":
        sim.resolve("o1.2", value)
    sim.advance(days=3)

    reason = (handle.record().task or pytest.fail("no task")).reason or ""
    assert handle.halted, handle.record()
    assert reason.startswith(f"o1.2: the record says {recorded}"), reason
    assert f"the code now does {current}" in reason
    assert shop.ran == before
    deployed(shop, sim, [*first, wait, *after])
    sim.continue_("o1")
    assert sim.run(handle) == [1, value, *([9] if followed else [])]
    assert shop.ran == before + Counter({"ship 9": 1} if followed else {})


def test_what_is_added_behind_the_record_is_no_change() -> None:
    shop, sim, handle = started([("charge", 1), ("promise",)])
    deployed(shop, sim, [("charge", 1), ("promise",), ("ship", 2)])
    sim.resolve("o1.2", "go")
    assert sim.run(handle) == [1, "go", 2]


def test_a_warm_body_is_not_replayed_and_so_not_compared() -> None:
    shop, sim, handle = started([*DONE, *WAIT, *THEN])
    shop.code = []
    sim.resolve("o1.6", "go")
    assert sim.run(handle) == [1, 2, None, 4, 5, "go", 9]


def test_a_run_that_ended_is_not_compared() -> None:
    shop, sim, handle = started([("charge", 1), ("promise",)])
    sim.resolve("o1.2", "go")
    assert sim.run(handle) == [1, "go"]
    deployed(shop, sim, [("ship", 1)])
    assert sim.start(shop.order, id="o1").result() == [1, "go"]


def test_a_timer_that_fired_may_have_another_length_now() -> None:
    """It fired: what is recorded of it is that, and when."""
    shop, sim, handle = started([("sleep", 3600), ("promise",)])
    sim.advance(hours=2)
    deployed(shop, sim, [("sleep", 7200), ("promise",)])
    sim.resolve("o1.2", "go")
    assert sim.run(handle) == [None, "go"]


def test_a_timer_that_is_pending_may_not() -> None:
    shop = Shop([])
    seconds = 3600

    @shop.app.workflow
    async def race(ctx: Context) -> str:
        timer, button = ctx.sleep(seconds), ctx.promise()
        await asyncio.wait([timer, button], return_when=asyncio.FIRST_COMPLETED)
        return "pressed" if button.done() else "late"

    sim = Simulation(shop.app)
    handle = sim.start(race, id="o1")
    sim.run_until_idle()
    began = sim.now_ms
    sim.cold()
    seconds = 7200
    sim.resolve("o1.2")
    sim.run_until_idle()
    reported(handle, "o1.1", f"a timer until {began + 3_600_000}", f"a timer until {began + 7_200_000}")
    seconds = 3600
    sim.continue_("o1")
    assert sim.run(handle) == "pressed"


MENDED = [
    ("slow", 1),
    ("quick", 1),
    ("sleep", 5),
    ("asleep", 5),
    ("ship", 1),
    ("charge", 2),
    ("child", 1),
    ("promise",),
]


@pytest.mark.parametrize("mode", ["rows", "queue"])
@pytest.mark.parametrize("new", MENDED, ids=str)
def test_what_has_only_failed_so_far_may_be_mended(new: tuple[Any, ...], mode: Any) -> None:
    """Nothing but failed attempts is recorded of it: new code may do anything there, and is not held up by them."""
    shop = Shop([("broken", 0)])
    broken = 0

    @shop.app.step
    def breaks(cents: int) -> int:
        nonlocal broken
        broken += 1
        raise ValueError("broken")

    one = shop._one
    shop._one = lambda ctx, kind, *args: ctx.run(breaks, *args) if kind == "broken" else one(ctx, kind, *args)  # type: ignore[method-assign]
    sim = Simulation(shop.app, mode=mode)
    handle = sim.start(shop.order, id="o1")
    sim.run_until_idle()
    assert broken == 1

    deployed(shop, sim, [new, ("ship", 9)])
    sim.advance(seconds=1)
    if new == ("promise",):
        sim.resolve("o1.1", "go")
    sim.advance(days=2)

    value = {"promise": "go", "sleep": None, "asleep": None}.get(new[0], new[-1])
    assert sim.run(handle) == [value, 9]
    assert broken == 1


def test_both_sides_are_attributes_of_the_error() -> None:
    error = NondeterminismError("o1.1", "step a()", "a timer")
    assert (error.id, error.recorded, error.current) == ("o1.1", "step a()", "a timer")
    assert "step a()" in str(error)
    assert "a timer" in str(error)


def test_on_an_embedded_store_with_a_second_version_of_the_app(tmp_path: Path) -> None:
    """The same through the runtime: a process with the new code, then one with the old."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"

    async def process(code: Code, *, again: bool = False) -> tuple[Shop, Any]:
        shop = Shop(code)
        async with Runtime(shop.app, url) as runtime:
            if again:
                await runtime.client.continue_("o1")
            handle = await runtime.client.start(shop.order, id="o1")
            if not again and code is not old:
                await runtime.client.resolve("o1.2", "go")
            try:
                await asyncio.wait_for(runtime.drive("o1"), 0.3 if code is old and not again else 30)
                return shop, await handle.result(timeout=0)
            except (TimeoutError, Halted) as error:
                return shop, error

    old: Code = [("charge", 1), ("promise",), ("ship", 9)]
    new: Code = [("charge", 100), ("promise",), ("ship", 9)]

    first, _ = asyncio.run(process(old))
    assert first.ran == {"charge 1": 1}
    second, error = asyncio.run(process(new))
    assert isinstance(error, Halted)
    assert "step charge(1)" in str(error)
    assert "step charge(100)" in str(error)
    assert second.ran == {}
    third, result = asyncio.run(process(old, again=True))
    assert result == [1, "go", 9]
    assert third.ran == {"ship 9": 1}
