"""The conformance catalogue over random scripts: every request and every internal step, the clock moving in between.

`EVERSTEP_PROPERTY_SCRIPTS` sets how many; a failure names its seed, and the script is the same again.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable

import pytest

from everstep.clock import NEVER
from everstep.kernel.internal import Resume
from everstep.promise import EMPTY, Payload, Record, Schedule, State, Task, TaskState
from everstep.protocol import (
    Execute,
    PromiseCreate,
    PromiseGet,
    PromiseRegisterCallback,
    PromiseRegisterListener,
    PromiseSettle,
    Reply,
    Request,
    ScheduleCreate,
    ScheduleDelete,
    ScheduleGet,
    TaskAcquire,
    TaskContinue,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskGet,
    TaskHalt,
    TaskHeartbeat,
    TaskRef,
    TaskRelease,
    TaskSuspend,
    Unblock,
)
from tests.core.properties import INTERNAL, STATE, STEP, Snapshot, failures
from tests.core.world import EXTERNAL, TARGET, TIMER, World

SCRIPTS = int(os.environ.get("EVERSTEP_PROPERTY_SCRIPTS", "40"))
STEPS = 200
TAGS = (TARGET, TARGET, EXTERNAL, TIMER, {}, {"resonate:scope": "global"}, {**TARGET, **TIMER})
ADDRESSES = ("http://x", "poll://any@g", "nowhere")


class Script:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World(1_000_000)
        self.replies: list[tuple[Request, Reply, int]] = []
        self.seen: Counter[str] = Counter()
        self.ids = ["a", "a.1", "a.2", "b"]

    def id(self) -> str:
        """Mostly something that exists and is recent."""
        there = [one.id for one in self.world.entities.values() if isinstance(one, Record)][-7:]
        return self.random.choice(there if there and self.random.random() < 0.7 else self.ids)

    def move_on(self, at: int) -> None:
        """What is settled has little left to show: now and then an id makes room for a new one."""
        if self.random.random() < 0.1:
            self.ids[self.random.randrange(len(self.ids))] = self.random.choice((f"c{at}", f"a.{at}"))

    def snapshot(self) -> Snapshot:
        entities = self.world.entities.values()
        return Snapshot(
            {one.id: one for one in entities if isinstance(one, Record)},
            {one.id: one for one in entities if isinstance(one, Schedule)},
            tuple(self.world.sent),
        )

    def version(self, id: str) -> int:
        record = self.world.entities.get(id)
        version = record.task.version if isinstance(record, Record) and record.task else 0
        return version + self.random.choice((0, 0, 0, 0, 0, 0, 1, -1))

    def creation(self, *, targeted: bool = False) -> PromiseCreate:
        tags = dict(TARGET if targeted else self.random.choice(TAGS))
        if self.random.random() < 0.2:
            tags["resonate:delay"] = str(self.world.now + self.random.randint(-50, 200))
        if self.random.random() < 0.2:
            tags["resonate:parent"] = self.id()
        timeout = self.random.choice((0, 300, 2000, 9000, 50_000, NEVER - self.world.now))
        id = self.random.choice(self.ids)
        return PromiseCreate(id, self.world.now + timeout, Payload(str(self.random.random())), tags)

    def settlement(self, id: str) -> PromiseSettle:
        states = [State.RESOLVED, State.RESOLVED, State.REJECTED, *State]
        return PromiseSettle(id, self.random.choice(states), Payload("v"))

    def request(self) -> Request:
        pick = self.random.choice
        id = pick((self.id, self.id, self.holder))()
        version = self.version(id)
        makers: list[Callable[[], Request]] = [
            lambda: PromiseGet(id),
            self.creation,
            self.creation,
            lambda: self.settlement(id),
            lambda: PromiseRegisterCallback(id, self.id()),
            lambda: PromiseRegisterCallback(id, self.holder()),
            lambda: PromiseRegisterListener(id, pick(ADDRESSES)),
            lambda: TaskGet(id),
            lambda: TaskCreate("w", pick((0, 100, 1000)), self.creation(targeted=self.random.random() < 0.9)),
            lambda: TaskAcquire(id, version, pick("wx"), pick((0, 100, 1000))),
            lambda: TaskFence(id, version, self.creation()),
            lambda: TaskFence(id, version, self.settlement(self.id())),
            lambda: TaskHeartbeat(pick("wx"), tuple(TaskRef(one, self.version(one)) for one in self.ids[:3])),
            *[self.suspension] * 6,
            lambda: TaskFulfill(id, version, self.settlement(pick((id, id, id, self.id())))),
            lambda: TaskRelease(id, version),
            lambda: TaskHalt(id),
            lambda: TaskContinue(id),
            lambda: ScheduleCreate(
                "s", "* * * * *", "{{.id}}.{{.timestamp}}", pick((0, 500, NEVER)), EMPTY, pick(TAGS)
            ),
            lambda: ScheduleGet("s"),
            lambda: ScheduleDelete("s"),
        ]
        return pick(makers)()

    def holder(self) -> str:
        """A task that is leased, where there is one."""
        entities = self.world.entities.values()
        held = [one.id for one in entities if isinstance(one, Record) and one.task and one.task.pid]
        return self.random.choice(held) if held else self.id()

    def suspension(self) -> Request:
        id = self.holder()
        if self.random.random() < 0.1:
            awaited = [self.id() for _ in range(self.random.randrange(4))]
        else:
            pending = [one.id for one in self.world.entities.values() if isinstance(one, Record) and one.pending]
            others = [one for one in pending if one != id]
            awaited = self.random.sample(others, min(len(others), self.random.choice((1, 1, 2, 3))))
        return TaskSuspend(id, self.version(id), tuple(PromiseRegisterCallback(one, id) for one in awaited))

    def internal(self) -> str:
        world, ids = self.world, [one.id for one in self.world.entities.values() if isinstance(one, Record)]
        if not ids:
            return "nothing"
        owing = [id for id in ids if world.record(id).callbacks or world.record(id).listeners]
        draining = bool(owing) and self.random.random() < 0.5
        record = world.record(self.random.choice(owing if draining else ids[-6:]))
        match self.random.choice((0, 3, 3, 3, 4)) if draining else self.random.randrange(6):
            case 0:
                return f"time_out {world.time_out(record.id)}"
            case 1:
                if record.task is not None:
                    return f"expire_lease {world.expire_lease(record.id)}"
            case 2:
                if record.task is not None:
                    return f"dispatch {world.dispatch(record.id) is not None}"
            case 3:
                for awaiter in record.callbacks[:1]:
                    return f"callback {world.drain_callback(record.id, awaiter) or 'early'}"
            case 4:
                for address in record.listeners[:1]:
                    return f"listener {world.drain_listener(record.id, address) is not None}"
            case _:
                return f"tick {world.tick('s', 3)}"
        return "nothing"

    def run(self) -> None:
        for at in range(STEPS):
            self.move_on(at)
            before = self.snapshot()
            internal = self.random.random() < 0.4
            if internal:
                what = self.internal()
                self.seen[what] += 1
            else:
                request = self.request()
                what = repr(request)
                reply = self.world.do(request)
                self.seen[f"{type(request).__name__} {reply.status}"] += 1
                self.replies.append((request, reply, self.world.now))
                self.projected(request, reply)
            broken = failures(self.world.now, before, self.snapshot(), internal=internal)
            assert not broken, f"step {at}, {what}: {broken}"
            if self.random.random() < 0.3:
                self.world.now += self.random.choice((1, 1, 10, 10, 100, 100, 1000, 6000))

    def projected(self, request: Request, reply: Reply) -> None:
        """Question C8: no answer shows a promise as pending at or after its deadline."""
        inner = reply.action or reply
        for record in (inner.promise, inner.task):
            if record is not None and record.pending:
                assert record.timeout_at > self.world.now, request


@pytest.mark.parametrize("seed", range(SCRIPTS))
def test_the_catalogue_holds_over_random_scripts(seed: int) -> None:
    Script(seed).run()


def test_answers_never_regress() -> None:
    """Once an answer has said how a promise was settled, every later answer says the same."""
    for seed in range(20):
        script = Script(1000 + seed)
        script.run()
        said: dict[str, tuple[State, int | None]] = {}
        for request, reply, _ in script.replies:
            promise = (reply.action or reply).promise
            if promise is None:
                continue
            verdict = (promise.state, promise.settled_at)
            assert said.get(promise.id, verdict) == verdict, request
            if not promise.pending:
                said[promise.id] = verdict


def test_the_scripts_reach_what_the_properties_guard() -> None:
    """A property whose guard nothing satisfies is not being checked."""
    seen: Counter[str] = Counter()
    for seed in range(40):
        script = Script(seed)
        script.run()
        seen += script.seen
    outcomes = (Resume.RESUMED, Resume.BUFFERED, Resume.EXPIRED, Resume.FULFILLED)
    wanted = [f"callback {outcome}" for outcome in outcomes]
    wanted += ["time_out True", "expire_lease True", "dispatch True", "listener True", "tick True"]
    wanted += ["TaskSuspend 200", "TaskSuspend 300", "TaskSuspend 422", "TaskFence 200", "TaskFence 409"]
    wanted += ["TaskContinue 200", "TaskHalt 200", "TaskFulfill 200", "TaskAcquire 200", "PromiseRegisterCallback 200"]

    assert [name for name in wanted if not seen[name]] == []


TASK = Task(TaskState.PENDING, 1, retry_at=5)
LIVE = Record("t", State.PENDING, tags=TARGET, timeout_at=100, created_at=0, task=TASK)
DONE = LIVE._replace(state=State.RESOLVED, settled_at=10, task=TASK._replace(state=TaskState.FULFILLED, retry_at=None))
OPEN = Record("p", State.PENDING, tags=EXTERNAL, timeout_at=100, created_at=0)
LEASE = {"state": TaskState.ACQUIRED, "pid": "w", "ttl": 5, "expires_at": 25, "retry_at": None}
PARKED = LIVE._replace(task=TASK._replace(state=TaskState.SUSPENDED, retry_at=None))
CRON = Schedule("s", "c", "x", 1, EMPTY, TARGET, 10, 20)


def told(record: Record, **fields: object) -> Record:
    assert record.task is not None
    return record._replace(task=record.task._replace(**fields))  # type: ignore[arg-type]


def shot(*records: Record, sent: tuple[object, ...] = (), schedules: tuple[Schedule, ...] = ()) -> Snapshot:
    return Snapshot({one.id: one for one in records}, {one.id: one for one in schedules}, sent)  # type: ignore[arg-type]


BAD_STATES: dict[str, Snapshot] = {
    "well_formed_promise_created_at_lte_timeout_at": shot(DONE._replace(created_at=101)),
    "well_formed_promise_pending_created_before_deadline": shot(OPEN._replace(created_at=100)),
    "well_formed_promise_settled_at_lte_timeout_at": shot(DONE._replace(settled_at=101)),
    "well_formed_promise_created_at_lte_settled_at": shot(DONE._replace(created_at=11)),
    "well_formed_promise_settled_at_iff_not_pending": shot(OPEN._replace(settled_at=1)),
    "well_formed_promise_pending_has_no_value": shot(OPEN._replace(value=Payload("1"))),
    "well_formed_promise_deadline_verdict_matches_timer_tag": shot(DONE._replace(settled_at=100)),
    "well_formed_promise_deadline_settlement_has_no_value": shot(
        OPEN._replace(state=State.TIMEDOUT, settled_at=100, value=Payload("1"))
    ),
    "well_formed_promise_timer_has_no_task": shot(LIVE._replace(tags={**TARGET, **TIMER})),
    "well_formed_promise_timedout_is_server_owned": shot(DONE._replace(state=State.TIMEDOUT)),
    "well_formed_promise_callbacks_unique": shot(LIVE, OPEN._replace(callbacks=("t", "t"))),
    "well_formed_promise_listeners_unique": shot(OPEN._replace(listeners=("http://x", "http://x"))),
    "well_formed_promise_obligations_require_external": shot(OPEN._replace(tags={}, listeners=("http://x",))),
    "well_formed_promise_awaiter_is_not_self": shot(LIVE._replace(callbacks=("t",))),
    "consistent_task_iff_targeted_promise": shot(LIVE._replace(tags=EXTERNAL)),
    "consistent_settled_promise_has_fulfilled_task": shot(DONE._replace(task=TASK)),
    "consistent_settled_task_promise_settled": shot(LIVE._replace(task=DONE.task)),
    "consistent_listener_addresses_deliverable": shot(OPEN._replace(listeners=("nowhere",))),
    "well_formed_promise_created_at_lte_now": shot(OPEN._replace(created_at=21)),
    "well_formed_promise_settled_at_lte_now": shot(DONE._replace(settled_at=21)),
    "well_formed_task_acquired_iff_has_pid": shot(told(LIVE, pid="w")),
    "well_formed_task_acquired_iff_has_ttl": shot(told(LIVE, ttl=1)),
    "well_formed_task_acquired_iff_has_expires_at": shot(told(LIVE, expires_at=1)),
    "well_formed_task_pending_iff_has_retry_at": shot(told(LIVE, retry_at=None)),
    "well_formed_task_fulfilled_is_cleared": shot(told(DONE, resumes=("p",))),
    "well_formed_task_suspended_is_cleared": shot(told(PARKED, retry_at=1)),
    "well_formed_task_halted_is_cleared": shot(told(LIVE, state=TaskState.HALTED)),
    "well_formed_task_suspended_has_no_resumes": shot(told(PARKED, resumes=("p",))),
    "well_formed_task_resumes_unique": shot(told(LIVE, resumes=("p", "p"))),
    "well_formed_task_acquired_version_positive": shot(told(LIVE, version=0, **LEASE)),
    "consistent_callback_awaiter_is_targeted": shot(OPEN._replace(callbacks=("q",))),
    "consistent_suspended_task_holds_rung": shot(PARKED),
    "consistent_outbox_never_ahead": shot(LIVE, sent=(Execute("t", 2, TARGET["resonate:target"]),)),
    "consistent_outbox_execute_address_is_target_tag": shot(LIVE, sent=(Execute("t", 1, "elsewhere"),)),
    "consistent_outbox_unblock_names_settled_promise": shot(OPEN, sent=(Unblock("http://x", OPEN),)),
    "well_formed_schedule": shot(schedules=(CRON._replace(last_run_at=20),)),
}

HELD = told(LIVE, **LEASE)
BAD_STEPS: dict[str, tuple[Snapshot, Snapshot]] = {
    "preserved_promise_birth_fields_immutable": (shot(OPEN), shot(OPEN._replace(timeout_at=99))),
    "preserved_settled_promise_record": (shot(DONE), shot(DONE._replace(value=Payload("2")))),
    "monotone_promise_set_grows": (shot(OPEN), shot()),
    "monotone_task_set_grows": (shot(LIVE), shot(LIVE._replace(task=None))),
    "monotone_task_version_increases_only_on_acquisition": (shot(LIVE), shot(HELD)),
    "preserved_fulfilled_task": (shot(DONE), shot(told(DONE, version=2))),
    "preserved_no_dead_dispatch": (shot(PARKED._replace(timeout_at=20)), shot(LIVE._replace(timeout_at=20))),
    "preserved_execute_only_for_live_task": (
        shot(LIVE._replace(timeout_at=20)),
        shot(LIVE._replace(timeout_at=20), sent=(Execute("t", 1, TARGET["resonate:target"]),)),
    ),
    "consistent_promise_settled_at_moves_with_state": (shot(OPEN), shot(OPEN._replace(state=State.RESOLVED))),
    "preserved_promise_value_until_settlement": (shot(OPEN), shot(OPEN._replace(value=Payload("1")))),
    "monotone_promise_obligations": (shot(DONE), shot(DONE._replace(listeners=("http://x",)))),
    "consistent_promise_state_edge_admissible": (shot(DONE), shot(DONE._replace(state=State.REJECTED))),
    "consistent_task_state_edge_admissible": (shot(LIVE), shot(PARKED)),
    "preserved_task_suspension_only_from_acquired": (shot(LIVE), shot(PARKED)),
    "consistent_settlement_fulfils_task": (shot(LIVE), shot(DONE._replace(task=TASK))),
    "consistent_task_fulfilment_needs_settlement": (shot(LIVE), shot(LIVE._replace(task=DONE.task))),
    "consistent_obligation_discharge_requires_settled": (shot(OPEN._replace(listeners=("http://x",))), shot(OPEN)),
    "consistent_callback_consumption_resumes_awaiter": (
        shot(LIVE, OPEN._replace(state=State.RESOLVED, settled_at=10, callbacks=("t",))),
        shot(LIVE, OPEN._replace(state=State.RESOLVED, settled_at=10)),
    ),
    "consistent_wake_follows_callback_consumption": (shot(PARKED), shot(told(LIVE, retry_at=20))),
    "consistent_listener_consumption_enqueues_unblock": (
        shot(DONE._replace(listeners=("http://x",))),
        shot(DONE),
    ),
    "consistent_new_unblock_carries_stored_record": (
        shot(DONE),
        shot(DONE, sent=(Unblock("http://x", DONE._replace(value=Payload("2"))),)),
    ),
    "consistent_new_execute_matches_task_and_target": (
        shot(LIVE),
        shot(LIVE, sent=(Execute("t", 0, TARGET["resonate:target"]),)),
    ),
    "consistent_suspension_registers_callback": (shot(HELD), shot(PARKED)),
    "consistent_task_birth": (shot(), shot(LIVE)),
    "consistent_new_promise_born_clean": (shot(), shot(OPEN._replace(listeners=("http://x",)))),
    "consistent_promise_settlement_stamp": (shot(OPEN), shot(OPEN._replace(state=State.RESOLVED, settled_at=19))),
    "consistent_task_lease_released_atomically": (shot(HELD), shot(told(LIVE, pid="w"))),
    "preserved_task_lease_holder_stable": (shot(HELD), shot(told(HELD, pid="x"))),
    "monotone_task_resumes_grow_or_clear": (shot(told(LIVE, resumes=("p",))), shot(told(LIVE, resumes=("q",)))),
    "consistent_task_resumes_cleared_only_on_dispatch_or_park": (shot(told(LIVE, resumes=("p",))), shot(LIVE)),
    "consistent_task_acquisition_is_atomic": (shot(LIVE), shot(told(HELD, version=2, expires_at=26))),
    "consistent_task_lease_deadline_is_now_plus_ttl": (shot(HELD), shot(told(HELD, expires_at=26))),
    "consistent_task_pending_entry_arms_retry": (shot(HELD), shot(LIVE)),
    "consistent_task_retry_rearm": (shot(LIVE), shot(told(LIVE, retry_at=20))),
    "preserved_schedule_birth_fields_immutable": (
        shot(schedules=(CRON,)),
        shot(schedules=(CRON._replace(promise_id="y"),)),
    ),
    "monotone_schedule_moves_forward": (
        shot(schedules=(CRON._replace(next_run_at=30),)),
        shot(schedules=(CRON,)),
    ),
    "consistent_task_state_edge_internal_admissible": (shot(LIVE), shot(told(HELD, version=2))),
    "consistent_promise_state_edge_internal_admissible": (
        shot(OPEN),
        shot(OPEN._replace(state=State.CANCELED, settled_at=20)),
    ),
}


def test_every_property_has_a_violator() -> None:
    assert set(BAD_STATES) == set(STATE)
    assert set(BAD_STEPS) == set(STEP) | set(INTERNAL)


@pytest.mark.parametrize("name", list(BAD_STATES))
def test_every_state_property_rejects_a_violator(name: str) -> None:
    assert not STATE[name](20, BAD_STATES[name])


@pytest.mark.parametrize("name", list(BAD_STEPS))
def test_every_step_property_rejects_a_violator(name: str) -> None:
    assert not {**STEP, **INTERNAL}[name](20, *BAD_STEPS[name])
