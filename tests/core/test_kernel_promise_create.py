"""promise.create: 200 with what stands, 400; born pending, or settled where the deadline has passed."""

from __future__ import annotations

import pytest

from everstep.clock import NEVER
from everstep.promise import Kind, Payload, Record, State, Task, TaskState
from everstep.protocol import PromiseCreate
from tests.core.world import EXTERNAL, LATER, NOW, TARGET, TIMER, World


def test_200_a_new_promise_is_pending() -> None:
    world = World()

    reply = world.do(PromiseCreate("a", LATER, Payload("1", {"h": "x"}), {"k": "v"}))

    assert reply.status == 200
    assert reply.promise == Record(
        "a", State.PENDING, param=Payload("1", {"h": "x"}), tags={"k": "v"}, timeout_at=LATER, created_at=NOW
    )
    assert world.last.puts == (reply.promise,)


def test_200_a_target_brings_a_task_that_is_due_at_once() -> None:
    world = World()

    world.create("a", TARGET)

    assert world.task("a") == Task(TaskState.PENDING, 0, retry_at=NOW)
    assert world.record("a").branch == "a"


def test_200_again_is_answered_with_what_stands() -> None:
    world = World()
    first = world.create("a", param=Payload("1")).promise

    again = world.do(PromiseCreate("a", NOW + 5, Payload("2"), TARGET))

    assert again.status == 200
    assert again.promise == first._replace(rev=1) if first else None
    assert world.last.puts == ()


def test_200_what_stands_is_shown_projected() -> None:
    world = World()
    world.create("a", timeout_at=NOW + 10)
    world.now = NOW + 10

    again = world.do(PromiseCreate("a", LATER))

    assert again.promise is not None
    assert (again.promise.state, again.promise.settled_at) == (State.TIMEDOUT, NOW + 10)
    assert world.last.puts == ()


@pytest.mark.parametrize(
    ("tags", "state"), [(EXTERNAL, State.TIMEDOUT), (TARGET, State.TIMEDOUT), (TIMER, State.RESOLVED)]
)
def test_200_born_past_its_deadline(tags: dict[str, str], state: State) -> None:
    world = World()

    promise = world.create("a", tags, timeout_at=NOW).promise

    assert promise is not None
    assert (promise.state, promise.created_at, promise.settled_at) == (state, NOW, NOW)
    assert promise.task == (Task(TaskState.FULFILLED) if tags is TARGET else None)


def test_200_a_delay_postpones_the_first_dispatch() -> None:
    world = World()

    world.create("a", {**TARGET, "resonate:delay": str(NOW + 500)})
    world.create("b", {**TARGET, "resonate:delay": "5"})

    assert world.task("a").retry_at == NOW + 500
    assert world.task("b").retry_at == NOW


@pytest.mark.parametrize("delay", ["soon", "-1", "", "1.5", "٣", "9" * 17, "9" * 5000])
def test_400_a_delay_is_an_instant(delay: str) -> None:
    assert World().create("a", {**TARGET, "resonate:delay": delay}).status == 400


@pytest.mark.parametrize("name", ["resonate:branch", "resonate:parent"])
@pytest.mark.parametrize("id", ["a\0", "a..b", "x" * 1001])
def test_400_a_lineage_is_made_of_ids(name: str, id: str) -> None:
    assert World().create("a", {**TARGET, name: id}).status == 400


def test_no_branch_is_its_own() -> None:
    world = World()

    world.create("a", {**TARGET, "resonate:branch": "", "resonate:parent": ""})

    assert world.record("a").branch == "a"


def test_a_timer_with_a_target_is_a_timer_and_nobodys_to_execute() -> None:
    world = World()

    promise = world.create("a", {**TARGET, **TIMER}, timeout_at=LATER).promise

    assert promise is not None
    assert promise.task is None
    assert promise.tags == {**TARGET, **TIMER}
    world.now = LATER
    assert world.time_out("a")
    assert world.record("a").state is State.RESOLVED


def test_400_an_id_that_could_be_a_schedule() -> None:
    assert World().create("~schedule/a").status == 400


def test_c2_no_deadline_is_2_to_the_53_minus_1() -> None:
    world = World()

    promise = world.create("a", TARGET, timeout_at=2**63 - 1).promise

    assert promise is not None
    assert promise.timeout_at == NEVER


def test_c2_a_child_does_not_outlive_its_parents_deadline() -> None:
    world = World()
    world.create("a", TARGET, timeout_at=NOW + 50)

    child = world.create("a.1", {"resonate:parent": "a"}, timeout_at=LATER).promise
    shorter = world.create("a.2", {"resonate:parent": "a"}, timeout_at=NOW + 20).promise
    elsewhere = world.create("x", {"resonate:parent": "a"}, timeout_at=LATER).promise
    unknown = world.create("b.1", {"resonate:parent": "b"}, timeout_at=LATER).promise
    own = world.create("c", {"resonate:parent": "c"}, timeout_at=LATER).promise

    assert [one.timeout_at for one in (child, shorter, elsewhere, unknown, own) if one] == [
        NOW + 50,
        NOW + 20,
        NOW + 50,
        LATER,
        LATER,
    ]


def test_i6_the_protocol_does_not_compare_work() -> None:
    world = World()
    world.create("a", {**TARGET, "everstep:work": "one"})

    assert world.create("a", {**TARGET, "everstep:work": "other"}).status == 200
    assert world.record("a").kind == Kind.ROOT
