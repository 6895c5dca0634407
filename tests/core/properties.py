"""The specification's conformance catalogue as predicates: over one state, and over two states one step apart.

The names are the catalogue's, so that a violation means the same thing everywhere. Properties that our shape makes
unsayable are absent: ids are keys of one mapping, and a task lives inside its promise's record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from everstep.kernel.promises import deliverable
from everstep.promise import EMPTY, TARGET, Record, Schedule, State, Task, TaskState, is_external, is_timer, project
from everstep.protocol import Execute, Message, Unblock


class Snapshot(NamedTuple):
    promises: Mapping[str, Record]
    schedules: Mapping[str, Schedule]
    sent: tuple[Message, ...]


StateCheck = Callable[[int, Snapshot], bool]
StepCheck = Callable[[int, Snapshot, Snapshot], bool]
STATE: dict[str, StateCheck] = {}
STEP: dict[str, StepCheck] = {}
INTERNAL: dict[str, StepCheck] = {}
"""Hold for internal steps only: what nobody asked for may not acquire, suspend, halt, continue, or invent a verdict."""

PENDING, ACQUIRED, SUSPENDED = TaskState.PENDING, TaskState.ACQUIRED, TaskState.SUSPENDED
HALTED, FULFILLED = TaskState.HALTED, TaskState.FULFILLED


def promise(check: Callable[[Record], bool]) -> StateCheck:
    STATE[check.__name__] = lambda now, s: all(check(one) for one in s.promises.values())
    return STATE[check.__name__]


def task(check: Callable[[Task], bool]) -> StateCheck:
    STATE[check.__name__] = lambda now, s: all(check(one.task) for one in s.promises.values() if one.task)
    return STATE[check.__name__]


def state(check: StateCheck) -> StateCheck:
    STATE[check.__name__] = check
    return check


def step(check: StepCheck) -> StepCheck:
    STEP[check.__name__] = check
    return check


def tasks(a: Snapshot, b: Snapshot) -> Iterator[tuple[Record, Task, Record, Task]]:
    """Tasks that are in both states."""
    for id, before in a.promises.items():
        after = b.promises.get(id)
        if after is not None and before.task is not None and after.task is not None:
            yield before, before.task, after, after.task


def pairs(a: Snapshot, b: Snapshot) -> Iterator[tuple[Record, Record]]:
    """Promises that are in both states."""
    for id, before in a.promises.items():
        if id in b.promises:
            yield before, b.promises[id]


def fresh(a: Snapshot, b: Snapshot) -> Iterator[Record]:
    return (record for id, record in b.promises.items() if id not in a.promises)


def news(a: Snapshot, b: Snapshot) -> tuple[Message, ...]:
    return b.sent[len(a.sent) :]


def verdict(record: Record) -> State:
    return State.RESOLVED if is_timer(record.tags) else State.TIMEDOUT


def unleased(one: Task) -> bool:
    return one.pid is None and one.ttl is None and one.expires_at is None


# One promise.


@promise
def well_formed_promise_created_at_lte_timeout_at(p: Record) -> bool:
    return p.created_at <= p.timeout_at


@promise
def well_formed_promise_pending_created_before_deadline(p: Record) -> bool:
    return not p.pending or p.created_at < p.timeout_at


@promise
def well_formed_promise_settled_at_lte_timeout_at(p: Record) -> bool:
    return p.settled_at is None or p.settled_at <= p.timeout_at


@promise
def well_formed_promise_created_at_lte_settled_at(p: Record) -> bool:
    return p.settled_at is None or p.created_at <= p.settled_at


@promise
def well_formed_promise_settled_at_iff_not_pending(p: Record) -> bool:
    return p.pending == (p.settled_at is None)


@promise
def well_formed_promise_pending_has_no_value(p: Record) -> bool:
    return not p.pending or p.value == EMPTY


@promise
def well_formed_promise_deadline_verdict_matches_timer_tag(p: Record) -> bool:
    return p.settled_at != p.timeout_at or p.state is verdict(p)


@promise
def well_formed_promise_deadline_settlement_has_no_value(p: Record) -> bool:
    return p.settled_at != p.timeout_at or p.value == EMPTY


@promise
def well_formed_promise_timer_has_no_task(p: Record) -> bool:
    """Ours for the specification's `timer_not_targeted`: an official SDK targets its timers, and needs no task."""
    return not (is_timer(p.tags) and p.task is not None)


@promise
def well_formed_promise_timedout_is_server_owned(p: Record) -> bool:
    return p.state is not State.TIMEDOUT or p.settled_at == p.timeout_at


@promise
def well_formed_promise_callbacks_unique(p: Record) -> bool:
    return len(set(p.callbacks)) == len(p.callbacks)


@promise
def well_formed_promise_listeners_unique(p: Record) -> bool:
    return len(set(p.listeners)) == len(p.listeners)


@promise
def well_formed_promise_obligations_require_external(p: Record) -> bool:
    return not (p.callbacks or p.listeners) or is_external(p)


@promise
def well_formed_promise_awaiter_is_not_self(p: Record) -> bool:
    return p.id not in p.callbacks


@promise
def consistent_task_iff_targeted_promise(p: Record) -> bool:
    return (p.task is not None) == (TARGET in p.tags and not is_timer(p.tags))


@promise
def consistent_settled_promise_has_fulfilled_task(p: Record) -> bool:
    return p.pending or p.task is None or p.task.state is FULFILLED


@promise
def consistent_settled_task_promise_settled(p: Record) -> bool:
    return p.task is None or p.task.state is not FULFILLED or not p.pending


@promise
def consistent_listener_addresses_deliverable(p: Record) -> bool:
    return all(deliverable(address) for address in p.listeners)


@state
def well_formed_promise_created_at_lte_now(now: int, s: Snapshot) -> bool:
    return all(p.created_at <= now for p in s.promises.values())


@state
def well_formed_promise_settled_at_lte_now(now: int, s: Snapshot) -> bool:
    return all(p.settled_at is None or p.settled_at <= now for p in s.promises.values())


# One task.


@task
def well_formed_task_acquired_iff_has_pid(t: Task) -> bool:
    return (t.state is ACQUIRED) == (t.pid is not None)


@task
def well_formed_task_acquired_iff_has_ttl(t: Task) -> bool:
    return (t.state is ACQUIRED) == (t.ttl is not None)


@task
def well_formed_task_acquired_iff_has_expires_at(t: Task) -> bool:
    return (t.state is ACQUIRED) == (t.expires_at is not None)


@task
def well_formed_task_pending_iff_has_retry_at(t: Task) -> bool:
    return (t.state is PENDING) == (t.retry_at is not None)


@task
def well_formed_task_fulfilled_is_cleared(t: Task) -> bool:
    return t.state is not FULFILLED or (unleased(t) and t.retry_at is None and not t.resumes)


@task
def well_formed_task_suspended_is_cleared(t: Task) -> bool:
    return t.state is not SUSPENDED or (unleased(t) and t.retry_at is None)


@task
def well_formed_task_halted_is_cleared(t: Task) -> bool:
    return t.state is not HALTED or (unleased(t) and t.retry_at is None)


@task
def well_formed_task_suspended_has_no_resumes(t: Task) -> bool:
    return t.state is not SUSPENDED or not t.resumes


@task
def well_formed_task_resumes_unique(t: Task) -> bool:
    return len(set(t.resumes)) == len(t.resumes)


@task
def well_formed_task_acquired_version_positive(t: Task) -> bool:
    return t.state is not ACQUIRED or t.version >= 1


# Several objects.


@state
def consistent_callback_awaiter_is_targeted(now: int, s: Snapshot) -> bool:
    return all(
        awaiter in s.promises and TARGET in s.promises[awaiter].tags
        for p in s.promises.values()
        for awaiter in p.callbacks
    )


@state
def consistent_suspended_task_holds_rung(now: int, s: Snapshot) -> bool:
    held = {awaiter for p in s.promises.values() for awaiter in p.callbacks}
    return all(
        p.task is None or p.task.state is not SUSPENDED or not project(p, now).pending or p.id in held
        for p in s.promises.values()
    )


@state
def consistent_outbox_never_ahead(now: int, s: Snapshot) -> bool:
    for message in s.sent:
        if isinstance(message, Execute):
            named = s.promises.get(message.id)
            if named is None or named.task is None or message.version > named.task.version:
                return False
    return True


@state
def consistent_outbox_execute_address_is_target_tag(now: int, s: Snapshot) -> bool:
    return all(
        message.address == s.promises[message.id].tags[TARGET] for message in s.sent if isinstance(message, Execute)
    )


@state
def consistent_outbox_unblock_names_settled_promise(now: int, s: Snapshot) -> bool:
    return all(
        not message.promise.pending and not s.promises[message.promise.id].pending and deliverable(message.address)
        for message in s.sent
        if isinstance(message, Unblock)
    )


@state
def well_formed_schedule(now: int, s: Snapshot) -> bool:
    """The four schedule properties: never a targeted timer; created <= next, created <= last < next."""
    return all(
        not (is_timer(c.promise_tags) and TARGET in c.promise_tags)
        and c.created_at <= c.next_run_at
        and (c.last_run_at is None or c.created_at <= c.last_run_at < c.next_run_at)
        for c in s.schedules.values()
    )


# Steps: what may not move, and what moves one way.


@step
def preserved_promise_birth_fields_immutable(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(
        (p.param, p.tags, p.timeout_at, p.created_at, p.kind, p.branch)
        == (q.param, q.tags, q.timeout_at, q.created_at, q.kind, q.branch)
        for p, q in pairs(a, b)
    )


@step
def preserved_settled_promise_record(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(
        p.pending or (p.state, p.settled_at, p.value) == (q.state, q.settled_at, q.value) for p, q in pairs(a, b)
    )


@step
def monotone_promise_set_grows(now: int, a: Snapshot, b: Snapshot) -> bool:
    return a.promises.keys() <= b.promises.keys()


@step
def monotone_task_set_grows(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(p.task is None or q.task is not None for p, q in pairs(a, b))


@step
def monotone_task_version_increases_only_on_acquisition(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(u.version == t.version + (t.state is PENDING and u.state is ACQUIRED) for _, t, _, u in tasks(a, b))


@step
def preserved_fulfilled_task(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(t.state is not FULFILLED or t == u for _, t, _, u in tasks(a, b))


@step
def preserved_no_dead_dispatch(now: int, a: Snapshot, b: Snapshot) -> bool:
    """Nothing becomes pending on behalf of a promise past its deadline."""
    for q in b.promises.values():
        before = a.promises.get(q.id)
        was = before is not None and before.task is not None and before.task.state is PENDING
        if q.task is not None and q.task.state is PENDING and not was and not project(q, now).pending:
            return q.id not in a.promises and q.created_at < now  # a tick noticed late is born as of its own instant
    return True


@step
def preserved_execute_only_for_live_task(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(project(b.promises[one.id], now).pending for one in news(a, b) if isinstance(one, Execute))


@step
def consistent_promise_settled_at_moves_with_state(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all((p.settled_at != q.settled_at) == (p.state is not q.state) for p, q in pairs(a, b))


@step
def preserved_promise_value_until_settlement(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(not q.pending or q.value == p.value for p, q in pairs(a, b))


@step
def monotone_promise_obligations(now: int, a: Snapshot, b: Snapshot) -> bool:
    """Callbacks and listeners grow while pending and shrink once settled (four properties of the catalogue)."""
    for p, q in pairs(a, b):
        small, large = (p, q) if q.pending else (q, p)
        if not (set(small.callbacks) <= set(large.callbacks) and set(small.listeners) <= set(large.listeners)):
            return False
    return True


@step
def consistent_promise_state_edge_admissible(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(p.pending or p.state is q.state for p, q in pairs(a, b))


EDGES = {
    PENDING: {PENDING, ACQUIRED, HALTED, FULFILLED},
    ACQUIRED: {PENDING, ACQUIRED, SUSPENDED, HALTED, FULFILLED},
    SUSPENDED: {PENDING, SUSPENDED, HALTED, FULFILLED},
    HALTED: {PENDING, HALTED, FULFILLED},
    FULFILLED: {FULFILLED},
}


@step
def consistent_task_state_edge_admissible(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(u.state in EDGES[t.state] for _, t, _, u in tasks(a, b))


@step
def preserved_task_suspension_only_from_acquired(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(u.state is not SUSPENDED or t.state in (ACQUIRED, SUSPENDED) for _, t, _, u in tasks(a, b)) and all(
        q.task is None or q.task.state is not SUSPENDED for q in fresh(a, b)
    )


# Steps: what moves together.


@step
def consistent_settlement_fulfils_task(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(not p.pending or q.pending or u.state is FULFILLED for p, _, q, u in tasks(a, b))


@step
def consistent_task_fulfilment_needs_settlement(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(
        u.state is not FULFILLED or t.state is FULFILLED or (p.pending and not q.pending) for p, t, q, u in tasks(a, b)
    )


@step
def consistent_obligation_discharge_requires_settled(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(
        not q.pending or (set(p.callbacks) <= set(q.callbacks) and set(p.listeners) <= set(q.listeners))
        for p, q in pairs(a, b)
    )


def consumed(a: Snapshot, b: Snapshot) -> Iterator[tuple[Record, str]]:
    for p, q in pairs(a, b):
        for awaiter in p.callbacks:
            if awaiter not in q.callbacks:
                yield p, awaiter


@step
def consistent_callback_consumption_resumes_awaiter(now: int, a: Snapshot, b: Snapshot) -> bool:
    for p, awaiter in consumed(a, b):
        told = b.promises.get(awaiter)
        alive = told is not None and told.task is not None and project(told, now).pending
        if alive and told is not None and told.task is not None and p.id not in told.task.resumes:
            return False
    return True


@step
def consistent_wake_follows_callback_consumption(now: int, a: Snapshot, b: Snapshot) -> bool:
    woken = {q.id: u for _, t, q, u in tasks(a, b) if t.state is SUSPENDED and u.state is PENDING}
    given = {awaiter: p.id for p, awaiter in consumed(a, b)}
    return all(id in given and given[id] in u.resumes and u.retry_at == now for id, u in woken.items())


@step
def consistent_listener_consumption_enqueues_unblock(now: int, a: Snapshot, b: Snapshot) -> bool:
    sent = [(one.promise.id, one.address) for one in news(a, b) if isinstance(one, Unblock)]
    gone = [(p.id, address) for p, q in pairs(a, b) for address in p.listeners if address not in q.listeners]
    return sorted(sent) == sorted(gone)


@step
def consistent_new_unblock_carries_stored_record(now: int, a: Snapshot, b: Snapshot) -> bool:
    for one in news(a, b):
        if isinstance(one, Unblock):
            q = b.promises[one.promise.id]
            if (q.state, q.settled_at, q.value) != (one.promise.state, one.promise.settled_at, one.promise.value):
                return False
    return True


@step
def consistent_new_execute_matches_task_and_target(now: int, a: Snapshot, b: Snapshot) -> bool:
    for one in news(a, b):
        if isinstance(one, Execute):
            q = b.promises[one.id]
            if q.task is None or q.task.version != one.version or q.tags[TARGET] != one.address:
                return False
    return True


@step
def consistent_suspension_registers_callback(now: int, a: Snapshot, b: Snapshot) -> bool:
    parked = [q.id for _, t, q, u in tasks(a, b) if t.state is not SUSPENDED and u.state is SUSPENDED]
    return all(any(id in q.callbacks and q.pending for q in b.promises.values()) for id in parked)


@step
def consistent_task_birth(now: int, a: Snapshot, b: Snapshot) -> bool:
    """A task is born with its promise: pending, acquired at version 1, or fulfilled with a settled promise."""
    for q in fresh(a, b):
        t = q.task
        if t is None:
            continue
        shape = {PENDING: (0, True), ACQUIRED: (1, True), FULFILLED: (0, False)}.get(t.state)
        if shape != (t.version, q.pending) or t.resumes:
            return False
    return all(q.task is not None or p.task is None for p, q in pairs(a, b))


@step
def consistent_new_promise_born_clean(now: int, a: Snapshot, b: Snapshot) -> bool:
    for q in fresh(a, b):
        alive = q.pending and q.settled_at is None and q.created_at < q.timeout_at
        dead = q.settled_at == q.created_at == q.timeout_at <= now and q.state is verdict(q)
        if q.callbacks or q.listeners or q.value != EMPTY or q.created_at > now or not (alive or dead):
            return False
    return True


@step
def consistent_promise_settlement_stamp(now: int, a: Snapshot, b: Snapshot) -> bool:
    for p, q in pairs(a, b):
        if p.pending and not q.pending:
            by_client = q.settled_at == now < q.timeout_at and q.state is not State.TIMEDOUT
            by_deadline = q.settled_at == q.timeout_at <= now and q.state is verdict(q) and q.value == p.value
            if not (by_client or by_deadline):
                return False
    return True


@step
def consistent_task_lease_released_atomically(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(
        not (t.state is ACQUIRED and u.state is not ACQUIRED) or (unleased(u) and u.version == t.version)
        for _, t, _, u in tasks(a, b)
    )


@step
def preserved_task_lease_holder_stable(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(
        not (t.state is u.state is ACQUIRED and t.version == u.version) or (t.pid, t.ttl) == (u.pid, u.ttl)
        for _, t, _, u in tasks(a, b)
    )


@step
def monotone_task_resumes_grow_or_clear(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(not u.resumes or set(t.resumes) <= set(u.resumes) for _, t, _, u in tasks(a, b))


@step
def consistent_task_resumes_cleared_only_on_dispatch_or_park(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(not t.resumes or u.resumes or u.state in (ACQUIRED, SUSPENDED, FULFILLED) for _, t, _, u in tasks(a, b))


@step
def consistent_task_acquisition_is_atomic(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(
        not (t.state is not ACQUIRED and u.state is ACQUIRED)
        or (t.state is PENDING and u.expires_at == now + (u.ttl or 0) and u.retry_at is None and not u.resumes)
        for _, t, _, u in tasks(a, b)
    )


@step
def consistent_task_lease_deadline_is_now_plus_ttl(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(
        u.expires_at is None or u.expires_at == now + (u.ttl or 0) or (t.expires_at, t.ttl) == (u.expires_at, u.ttl)
        for _, t, _, u in tasks(a, b)
    )


@step
def consistent_task_pending_entry_arms_retry(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(t.state is PENDING or u.state is not PENDING or u.retry_at == now for _, t, _, u in tasks(a, b))


@step
def consistent_task_retry_rearm(now: int, a: Snapshot, b: Snapshot) -> bool:
    """Only when due, and only forward (two properties of the catalogue)."""
    for _, t, _, u in tasks(a, b):
        moved = t.state is u.state is PENDING and t.retry_at != u.retry_at
        if moved and not (t.retry_at is not None and u.retry_at is not None and t.retry_at <= now < u.retry_at):
            return False
    return True


@step
def preserved_schedule_birth_fields_immutable(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(
        c.created_at != d.created_at or c[1:7] == d[1:7]
        for id, c in a.schedules.items()
        for d in [b.schedules.get(id, c)]
    )


@step
def monotone_schedule_moves_forward(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(
        c.created_at != d.created_at or c.next_run_at <= d.next_run_at
        for id, c in a.schedules.items()
        for d in [b.schedules.get(id, c)]
    )


# Internal steps.


def consistent_task_state_edge_internal_admissible(now: int, a: Snapshot, b: Snapshot) -> bool:
    moved = {(t.state, u.state) for _, t, _, u in tasks(a, b) if t.state is not u.state}
    return moved <= {(ACQUIRED, PENDING), (SUSPENDED, PENDING)} | {(one, FULFILLED) for one in TaskState}


def consistent_promise_state_edge_internal_admissible(now: int, a: Snapshot, b: Snapshot) -> bool:
    return all(p.state is q.state or (p.pending and q.state is verdict(q)) for p, q in pairs(a, b))


for _check in (consistent_task_state_edge_internal_admissible, consistent_promise_state_edge_internal_admissible):
    INTERNAL[_check.__name__] = _check


def failures(now: int, a: Snapshot, b: Snapshot, *, internal: bool) -> list[str]:
    """The names of what broke in a step from `a` to `b`."""
    steps = {**STEP, **(INTERNAL if internal else {})}
    return [name for name, check in STATE.items() if not check(now, b)] + [
        name for name, check in steps.items() if not check(now, a, b)
    ]
