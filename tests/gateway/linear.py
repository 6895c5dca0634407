"""Linearizability of a recorded history, against the kernel.

Theory (Wing and Gong; Lowe's memory of what was tried). A history is linearizable when each operation can be given an
instant between its call and its return, such that the kernel, asked in that order, gives each the answer that was
recorded. Between operations the server takes steps that nobody asked for, each whenever its condition holds: a lease
ends, an awaiter of a settled promise is woken. The search tries every operation that may come next, after whichever
such steps; what it has tried, it remembers by the set of operations done and the state.

Where a request reads what its commit cannot check, it has two such instants: no commit spans two origins, and none has
a condition on a parent, which a child's deadline is taken from once (rules C2 and C3). Then the kernel is asked on what
stands in the origin of the request at the second instant and on what stood elsewhere at the first; that one's effects
elsewhere happen then, and nothing of what the commit does check may have changed in between. It is so that a suspension
registers its callbacks in other origins before it parks its task: the other way round, a crash in between would leave
a task that nobody wakes. Where the task is lost in between, such a callback stays, and wakes it once for nothing, which
the protocol allows: it is what `promise.register_callback` would have left.

All of a history happens at one instant of the clock. It begins in a known state, and its end must be one that the
server's visible state agrees with once every such step has been taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from everstep import kernel
from everstep.cron import next_cron
from everstep.ids import origin_of
from everstep.kernel import Entity, Outcome, internal, schedules
from everstep.kernel.promises import PARENT
from everstep.promise import Kind, Record, project
from everstep.protocol import PromiseCreate, Reply, Request, TaskCreate, TaskFence
from everstep.protocol_json import BadRequest, parse, render, render_error
from everstep.record_json import promise_json, schedule_json, task_json
from everstep.rows import Row, from_row, schedule_row, to_row


class Operation(NamedTuple):
    """A request and its answer, as envelopes, and the moments of its call and return on one common counter."""

    called: int
    returned: int
    request: Mapping[str, Any]
    answer: Mapping[str, Any]


class State:
    """What the kernel would have on record; never changed, only replaced."""

    __slots__ = ("entities", "key", "rows")

    def __init__(self, entities: Mapping[str, Entity], rows: Mapping[str, Row] | None = None) -> None:
        self.entities = entities
        self.rows = rows if rows is not None else {id: _row(entity) for id, entity in entities.items()}
        self.key = frozenset(self.rows.values())

    def having(self, *puts: Entity, without: tuple[str, ...] = ()) -> State:
        changed = {_id(entity): entity._replace(rev=0, wake=None) for entity in puts}
        entities = {id: entity for id, entity in {**self.entities, **changed}.items() if id not in without}
        rows = {id: row for id, row in self.rows.items() if id in entities}
        rows.update((id, _row(entity)) for id, entity in changed.items())
        return State(entities, rows)

    def records(self) -> Iterator[Record]:
        return (one for one in self.entities.values() if isinstance(one, Record))


def _id(entity: Entity) -> str:
    return entity.id if isinstance(entity, Record) else schedules.row_id(entity.id)


def _row(entity: Entity) -> Row:
    row = to_row(entity) if isinstance(entity, Record) else schedule_row(entity)
    return row._replace(rev=0)


def begin(entities: Mapping[str, Entity]) -> State:
    """The state a history begins in."""
    return State({}).having(*entities.values())


class Look(NamedTuple):
    """What an operation saw at its first instant: the row that is its own, and those that its commit will not check."""

    operation: int
    own: Row | None
    others: frozenset[tuple[str, Row | None]]


def answer(
    state: State, envelope: Mapping[str, Any], now: int, look: Look | None = None
) -> tuple[dict[str, Any], State]:
    """What the kernel answers, and the state after it."""
    try:
        request = parse(envelope)
    except BadRequest as error:
        return render_error(envelope, 400, str(error)), state
    outcome = _decided(state, request, now, look)
    reply = outcome.reply
    after = state.having(*outcome.puts, without=outcome.deletes) if outcome.puts or outcome.deletes else state
    if outcome.branch is not None:
        reply = _with_preload(after, outcome.branch, reply, now)
    return render(request, reply, envelope["head"]["corrId"]), after


def _decided(state: State, request: Request, now: int, look: Look | None = None) -> Outcome:
    known = {id: state.entities[id] for id in kernel.reads(request) if id in state.entities}
    for id, row in look.others if look is not None else ():
        known.pop(id, None)
        if row is not None:
            known[id] = from_row(row)
    return kernel.apply(request, known, now, next_cron)


def look_of(state: State, at: int, envelope: Mapping[str, Any], now: int) -> tuple[Look, State] | None:
    """The first instant of an operation that has two, and the state after it; None where it would be of no use."""
    try:
        request = parse(envelope)
    except BadRequest:
        return None
    ids = kernel.reads(request)
    own = _own(request, ids)
    parent = _parent(request)
    others = [id for id in ids if origin_of(id) != origin_of(own) or id == parent != own]
    if not others:
        return None
    puts = _decided(state, request, now).puts
    if not puts:
        return None
    elsewhere = [one for one in puts if origin_of(_id(one)) != origin_of(own)]
    after = state.having(*elsewhere) if elsewhere else state
    return Look(at, after.rows.get(own), frozenset((id, after.rows.get(id)) for id in others)), after


def _own(request: Request, ids: Sequence[str]) -> str:
    return request.action.id if isinstance(request, TaskFence) else ids[0] if ids else ""


def _parent(request: Request) -> str | None:
    action = request.action if isinstance(request, TaskFence | TaskCreate) else request
    return action.tags.get(PARENT) if isinstance(action, PromiseCreate) else None


def holds(state: State, envelope: Mapping[str, Any], look: Look) -> bool:
    """Whether what the commit checks is as it was seen."""
    request = parse(envelope)
    return state.rows.get(_own(request, kernel.reads(request))) == look.own


def _with_preload(state: State, branch: tuple[str, str], reply: Reply, now: int) -> Reply:
    name, own = branch
    below = f"{name}."  # rule I4
    near = [one for one in state.records() if one.id == name or one.id.startswith(below)]
    found = [project(one, now) for one in near if one.branch == name and one.id != own and one.kind != Kind.FOLD]
    return reply._replace(preload=tuple(sorted(found, key=lambda one: one.id)))


def steps(state: State, now: int) -> Iterator[State]:
    """The states that one step of the server's own leads to."""
    for record in state.records():
        freed = internal.expire_lease(record, now)
        if freed is not None:
            yield state.having(freed)
        shown = project(record, now)
        if shown.pending:
            continue
        for id in shown.callbacks:
            awaiter = state.entities.get(id)
            woken = internal.resume(awaiter if isinstance(awaiter, Record) else None, record.id, now).record
            told = internal.drained(shown, (id,), ())
            yield state.having(told) if woken is None else state.having(told, woken)
            if woken is not None and origin_of(id) != origin_of(record.id):
                yield state.having(woken)  # no commit holds both, and who comes next tells it again


def at_rest(state: State, now: int) -> State:
    """The state once every step of the server's own has been taken."""
    while (after := next(steps(state, now), None)) is not None:
        state = after
    return state


def shown(state: State, now: int) -> dict[str, Any]:
    """What clients can see of a state."""
    found: dict[str, Any] = {}
    for id, entity in state.entities.items():
        if not isinstance(entity, Record):
            found[id] = schedule_json(entity)
            continue
        record = project(entity, now)
        found[id] = (promise_json(record), task_json(record) if record.task is not None else None)
    return found


class Verdict(NamedTuple):
    """`ok`, how many states the search met, the most operations that could be put in order, and where all could, what
    the last order found would have left that was not what clients saw: by id, this and that."""

    ok: bool
    states: int
    longest: int
    left: Mapping[str, tuple[Any, Any]] = {}


def check(
    start: State, history: list[Operation], now: int, end: Mapping[str, Any] | None = None, later: int | None = None
) -> Verdict:
    """Whether a history is linearizable.

    Args:
        start: the state before it.
        now: the instant it happened at, in milliseconds.
        end: what clients saw at rest afterwards, at `later` (by default, at `now`).
    """
    every = (1 << len(history)) - 1
    tried: set[tuple[int, frozenset[Look], frozenset[Row]]] = set()
    stack: list[tuple[int, frozenset[Look], State]] = [(0, frozenset(), start)]
    longest = 0
    left: dict[str, tuple[Any, Any]] = {}
    while stack:
        done, looks, state = stack.pop()
        if (done, looks, state.key) in tried:
            continue
        tried.add((done, looks, state.key))
        longest = max(longest, done.bit_count())
        if done == every:
            rest = shown(at_rest(state, later or now), later or now) if end is not None else end
            if end is None or rest is None or rest == end:
                return Verdict(True, len(tried), longest)
            left = {id: (rest.get(id), end.get(id)) for id in {**rest, **end} if rest.get(id) != end.get(id)}
            continue
        # Whoever returned before another was called comes before it.
        limit = min(one.returned for at, one in enumerate(history) if not done >> at & 1)
        under_way = [(at, one) for at, one in enumerate(history) if not done >> at & 1 and one.called <= limit]
        for at, one in under_way:
            first = look_of(state, at, one.request, now)
            if first is not None and first[0] not in looks:
                others = frozenset(look for look in looks if look.operation != at)
                stack.append((done, others | {first[0]}, first[1]))
        stack += [(done, looks, after) for after in steps(state, now)]
        for at, one in under_way:
            standing = next((look for look in looks if look.operation == at), None)
            others = looks - {standing} if standing is not None else looks
            if standing is not None and holds(state, one.request, standing):
                said, after = answer(state, one.request, now, standing)
                if said == one.answer:
                    stack.append((done | 1 << at, others, after))
            said, after = answer(state, one.request, now)
            if said == one.answer:
                stack.append((done | 1 << at, others, after))
    return Verdict(False, len(tried), longest, left)
