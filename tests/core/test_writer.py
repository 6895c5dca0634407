"""Rule W2: arm, commit, disarm, send; and what each failure on the way leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import pytest

from everstep.clock import NEVER, VirtualClock
from everstep.errors import OutcomeUnknown, WakerError
from everstep.ports import Commit, Fence, Guard, Refused, Wake
from everstep.promise import Payload, Record, Schedule, State, Task, TaskState
from everstep.rows import from_row
from everstep.writer import Writer, Written
from tests.core.dictstore import DictStore, QueueWaker

T = TypeVar("T")
NOW = 1_000_000
TAGS = {"resonate:target": "here"}


def run(work: Awaitable[T]) -> T:
    async def main() -> T:
        return await work

    return asyncio.run(main())


class World:
    def __init__(self, *, by_row: bool = False, tokens: bool = True) -> None:
        self.store = DictStore()
        self.waker = QueueWaker(self.store.log, by_row=by_row, tokens=tokens)
        self.clock = VirtualClock(NOW)
        self.writer = Writer(self.store, self.waker, self.clock, settle_delay=700)

    def stored(self, id: str) -> Record:
        return from_row(self.store.rows[id])


def root(retry_at: int = NOW) -> Record:
    task = Task(TaskState.PENDING, version=3, retry_at=retry_at)
    return Record("a", State.PENDING, tags=TAGS, created_at=NOW, task=task)


def step(n: int = 1) -> Record:
    return Record(f"a.{n}", State.RESOLVED, "step", branch="a", created_at=NOW, settled_at=NOW)


def test_a_step_is_one_store_request_and_nothing_else() -> None:
    world = World()

    assert run(world.writer.write([(None, step())])) is None

    assert world.store.log == ["commit"]
    assert world.stored("a.1") == step()._replace(rev=1)


def test_w2_the_deadline_is_armed_before_the_commit() -> None:
    world = World()

    answer = run(world.writer.commit([(None, root(NOW + 500_000))]))

    assert world.store.log == ["arm", "commit"]
    assert world.waker.armed == [(Wake("a", 3), NOW + 500_000, "t1")]
    assert answer == Written((root(NOW + 500_000)._replace(rev=1, wake="t1"),))
    assert world.stored("a") == root(NOW + 500_000)._replace(rev=1, wake="t1")


def test_w2_the_old_alarm_is_taken_back_after_the_commit() -> None:
    world = World()
    run(world.writer.write([(None, root(NOW + 500_000))]))
    old = world.stored("a")
    world.store.log.clear()

    assert run(world.writer.write([(old, root(NOW + 900_000))])) is None

    assert world.store.log == ["arm", "commit", "disarm"]
    assert world.waker.disarmed == ["t1"]
    assert world.stored("a").wake == "t2"
    assert world.stored("a").rev == 2


def test_w6_a_wake_up_that_comes_soon_is_left_to_come_for_it_may_be_in_a_holders_hand() -> None:
    world = World()
    run(world.writer.write([(None, root(NOW + 50_000))]))
    old = world.stored("a")
    world.store.log.clear()

    run(world.writer.write([(old, root(NOW + 900_000))]))
    run(world.writer.write([(old, root(NOW + 51_000))]))

    assert world.store.log == ["arm", "commit", "arm", "commit"]


def test_an_unchanged_deadline_is_not_armed_again() -> None:
    world = World()
    run(world.writer.write([(None, root(NOW + 500_000))]))
    old = world.stored("a")
    world.store.log.clear()

    run(world.writer.write([(old, old._replace(value=Payload("1")))]))

    assert world.store.log == ["commit"]
    assert world.stored("a").wake == "t1"


def test_a_record_that_is_never_due_again_loses_its_alarm() -> None:
    world = World()
    run(world.writer.write([(None, root(NOW + 500_000))]))
    old = world.stored("a")
    world.store.log.clear()

    run(world.writer.write([(old, old._replace(state=State.RESOLVED, settled_at=NOW, task=None))]))

    assert world.store.log == ["commit", "disarm"]
    assert world.stored("a").wake is None


def test_w3_what_is_due_at_once_is_armed_with_a_short_delay_and_no_second_message() -> None:
    world = World()

    run(world.writer.write([(None, root(NOW))]))

    assert world.waker.armed == [(Wake("a", 3), NOW + 700, "t1")]
    assert world.waker.sent == []


def test_w2_a_commit_slower_than_its_alarm_sends_again() -> None:
    world = World()
    world.store.before_commit = lambda: world.clock.advance(500_000)

    run(world.writer.write([(None, root(NOW + 500_000))]))

    assert world.store.log == ["arm", "commit", "send"]
    assert world.waker.sent == [Wake("a", 3)]


def test_w2_a_refused_commit_takes_its_alarm_back_and_sends_nothing() -> None:
    world = World()
    run(world.writer.write([(None, root(NOW + 500_000))]))
    standing = world.store.rows["a"]
    world.store.log.clear()

    refused = run(world.writer.write([(None, root(NOW + 900_000))]))

    assert refused == Refused(False, {"a": standing})
    assert world.store.log == ["arm", "commit", "disarm"]
    assert world.waker.disarmed == ["t2"]
    assert world.store.rows["a"] == standing


def test_a_refused_commit_keeps_the_alarm_that_stands_under_the_same_name() -> None:
    world = World()
    old = root(NOW + 500_000)._replace(wake="t1", rev=4)

    assert isinstance(run(world.writer.write([(old, root(NOW + 900_000))])), Refused)

    assert world.waker.disarmed == []


def test_f3_after_an_unknown_outcome_the_alarm_stays() -> None:
    world = World()

    async def lost(commit: Commit) -> Refused | None:
        raise OutcomeUnknown("no answer")

    world.store.commit = lost  # type: ignore[method-assign]

    with pytest.raises(OutcomeUnknown):
        run(world.writer.write([(None, root(NOW + 500_000))]))

    assert world.waker.disarmed == []


def test_w2_nothing_is_committed_when_arming_fails() -> None:
    world = World()
    world.waker.fails = WakerError("throttled")

    with pytest.raises(WakerError):
        run(world.writer.write([(None, root())]))

    assert world.store.rows == {}


def test_disarming_may_fail() -> None:
    world = World()
    run(world.writer.write([(None, root(NOW + 500_000))]))
    old = world.stored("a")
    world.waker.fails = WakerError("throttled")

    assert run(world.writer.write([(old, old._replace(state=State.RESOLVED, settled_at=NOW, task=None))])) is None

    assert world.stored("a").state is State.RESOLVED


def test_w6_a_covered_id_is_not_armed_and_its_old_alarm_goes() -> None:
    world = World()
    run(world.writer.write([(None, root(NOW + 500_000))]))
    old = world.stored("a")
    world.store.log.clear()

    run(world.writer.write([(old, root(NOW + 900_000))], covered={"a"}, hand="t77"))

    assert world.store.log == ["commit", "disarm"]
    assert world.stored("a").wake is None


@pytest.mark.parametrize("hand", ["t1", ""])
def test_w6_the_message_in_hand_is_not_taken_back_for_it_comes_back_for_a_dead_holder(hand: str) -> None:
    world = World()
    run(world.writer.write([(None, root(NOW + 500_000))]))
    old = world.stored("a")
    world.store.log.clear()

    run(world.writer.write([(old, root(NOW + 900_000))], covered={"a"}, hand=hand))

    assert world.store.log == ["commit"]


@pytest.mark.parametrize("tokens", [True, False])
def test_w1_what_follows_a_covered_record_is_armed_even_if_it_is_due_at_the_same_instant(tokens: bool) -> None:
    world = World(tokens=tokens)
    run(world.writer.write([(None, root(NOW + 900_000))], covered={"a"}))
    covered = world.stored("a")
    world.store.log.clear()

    run(world.writer.write([(covered, covered._replace(value=Payload("1")))]))
    armed = world.stored("a")
    run(world.writer.write([(armed, armed._replace(value=Payload("2")))]))

    assert world.store.log == ["arm", "commit", "commit"]


def test_by_row_the_commit_is_the_arming_and_the_bell_rings_after_it() -> None:
    world = World(by_row=True)

    run(world.writer.write([(None, root(NOW + 500_000)), (None, step())]))
    run(world.writer.write([(None, root(NOW)._replace(id="a.2"))]))

    assert world.store.log == ["commit", "arm", "commit", "send"]
    assert world.waker.armed[0][:2] == (Wake("a", 3), NOW + 500_000)
    assert world.waker.sent == [Wake("a.2", 3)]
    assert world.stored("a").wake is None


def test_by_row_a_broken_bell_is_no_failure() -> None:
    world = World(by_row=True)
    world.waker.fails = WakerError("no bell")

    assert run(world.writer.write([(None, root())])) is None

    assert world.store.rows["a"].due == NOW


def test_w3_extra_deliveries_are_armed_before_the_commit() -> None:
    world = World()

    run(world.writer.write([(None, step())], wakes=[Wake("b", 2)]))

    assert world.store.log == ["arm", "commit"]
    assert world.waker.armed == [(Wake("b", 2), NOW + 700, "t1")]


def test_c2_a_record_without_a_deadline_is_never_armed() -> None:
    world = World()

    run(world.writer.write([(None, root()._replace(task=Task(TaskState.HALTED), timeout_at=NEVER))]))

    assert world.store.log == ["commit"]


def test_a_schedule_is_armed_for_its_next_run() -> None:
    world = World()
    schedule = Schedule("nightly", "0 3 * * *", "x.{{.timestamp}}", 60, Payload(), {}, NOW, NOW + 8000)

    answer = run(world.writer.commit([(None, schedule)]))

    assert world.waker.armed == [(Wake("~schedule/nightly"), NOW + 8000, "t1")]
    assert answer == Written((schedule._replace(wake="t1", rev=1),))


def test_f1_fence_guards_and_deletes_reach_the_store() -> None:
    world = World()
    run(world.writer.write([(None, step(1)), (None, step(2))]))

    fenced = run(world.writer.write([(None, step(3))], fence=Fence("a", 3)))
    guarded = run(world.writer.write([(None, step(3))], guards=(Guard("a.1", 9),)))
    assert run(world.writer.write([], deletes=("a.1",))) is None

    assert fenced == Refused(True, {})
    assert isinstance(guarded, Refused)
    assert guarded.found["a.1"] is not None
    assert set(world.store.rows) == {"a.2"}
