"""What durability may ask of a store, counted: requests, rows, wake-ups. Counts only; times are for `make bench`.

The programs and the counting are those of bench/, so what is asserted here is what is published there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from bench.programs import app, long, nap
from bench.requests import Counts, count, countdown_iterations, fan_in, settled_fan_in
from bench.rig import Rig
from everstep import App, Context
from everstep.ports import Store
from everstep.stores.memory import MemoryStore
from everstep.stores.sqlite import SqliteStore

CHILDREN = 40
Make = Callable[[], Store]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "memory":
        return MemoryStore
    files = iter(range(1000))
    return lambda: SqliteStore(tmp_path / f"{next(files)}.db", synchronous="off")


@pytest.fixture
def counts(make: Make) -> Counts:
    return asyncio.run(count(make, CHILDREN))


def test_a_step_is_one_request(counts: Counts) -> None:
    assert counts.step == 1


def test_a_suspension_is_one_request(counts: Counts) -> None:
    assert counts.suspension == 1


def test_a_resume_is_two_requests_cold_and_warm(counts: Counts) -> None:
    assert (counts.cold_resume, counts.warm_resume) == (2, 2)


def test_b1_a_countdown_iteration_is_three_writes_and_one_query(counts: Counts) -> None:
    """Rule B1: acquire, step, suspend."""
    assert (counts.iteration, counts.queries) == (3, 1)


def test_b1_a_countdown_iteration_arms_one_wake_up_for_its_sleep_and_one_for_its_lease() -> None:
    """Rule B1: one message a sleep; where the store's due column is the alarm clock, the lease's is a column too."""
    rig, _, _ = asyncio.run(countdown_iterations(MemoryStore(), cache=0))

    assert rig.bell.counts["armed"] == 2 * 6
    assert rig.bell.counts["sent"] == 0


def test_b3_a_completed_child_of_a_fan_in_is_two_writes(counts: Counts) -> None:
    """Rule B3: the child's record is settled, and its callback is taken off."""
    assert (counts.child, counts.settle) == (2, 2)


def test_b3_a_fan_in_of_a_hundred_by_gather_wakes_its_parent_once(make: Make) -> None:
    """Rules B3, P5: not a hundred times."""
    rig, _, _ = asyncio.run(fan_in(make(), 100))
    promises, _ = asyncio.run(settled_fan_in(make(), 100))

    assert rig.acquired["f"] == 1
    assert promises.acquired["a"] == 1


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("children", [25, 100, 200])
def test_b3_to_ask_whether_it_is_the_last_a_child_reads_a_few_of_its_siblings(
    make: Make, children: int, backwards: bool
) -> None:
    """Rule B3: in whatever order they end; reading all of them each time would be reading N records N times."""
    _, _, rows = asyncio.run(fan_in(make(), children, backwards=backwards))

    assert rows < 12


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


@pytest.mark.parametrize("history", [10, 2_000])
def test_a_warm_resume_reads_its_own_record_and_what_it_waits_for(make: Make, history: int) -> None:
    async def work() -> None:
        rig = Rig(app, make())
        await rig.start(long, history, id="r")
        await rig.work()
        rig.forget()
        await rig.sleep(60)
        await rig.sleep(60)
        assert rig.before["resumed"] == [0, 0]
        assert rig.store.counts["branch"] == 0
        assert rig.deliveries == [1, 1]

    run(work())


def test_a_warm_fan_in_reads_its_own_record_and_its_children(make: Make) -> None:
    async def work() -> None:
        rig, _, _ = await fan_in(make(), 30)
        assert rig.acquired["f"] == 1
        assert rig.before["resumed"] == [0]
        assert rig.deliveries[-1] == 1 + 30

    run(work())


watch = App("watch")


@watch.step
def look(number: int) -> int:
    return number


@watch.workflow
async def for_ever(ctx: Context) -> None:
    """Never continues as new: what keeps its reading bounded is folding."""
    number = 0
    while True:
        number = await ctx.run(look, number + 1)
        await ctx.sleep(60)


def test_ten_thousand_iterations_in_one_history_read_a_bounded_number_of_records() -> None:
    """A cold resume reads what is not folded yet, and one record for every 512 deliveries that are, or a few more."""

    async def work() -> None:
        rig = Rig(watch, MemoryStore(), fold_after=512)
        await rig.start(for_ever, id="w")
        await rig.work()
        for iteration in range(1, 10_001):
            if iteration % 500 == 0:
                rig.driver.cold()
            await rig.sleep(60)
            if iteration % 500 == 0:
                assert rig.deliveries[-1] <= 512 + 2 * iteration // 512 + 2
        task = (await rig.record("w")).task
        assert task is not None
        assert len(task.segments) <= 512
        assert len(await rig.store.branch("w")) <= 512 + 20_000 // 512 + 2

    run(work())


def test_folding_is_paid_once_for_hundreds_of_deliveries(make: Make) -> None:
    async def work() -> None:
        rig = Rig(app, make(), fold_after=100)
        await rig.start(long, 750, id="r")
        await rig.work()
        assert len(rig.before["folded"]) == 1
        assert rig.before["folded"] == [1]
        assert len(await rig.store.branch("r")) == 2

    run(work())


def test_a_sleeping_run_asks_for_nothing(make: Make) -> None:
    async def work() -> None:
        rig = Rig(app, make())
        await rig.start(nap, id="n")
        await rig.work()
        rig.forget()
        for _ in range(23):
            await rig.sleep(3600)
        assert rig.store.counts.total() == 0
        await rig.sleep(3600)
        assert rig.store.counts.total() == 3

    run(work())
