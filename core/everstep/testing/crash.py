"""`crash_everywhere`: one run for every point at which an instance can die, be asked twice, or be late.

A point is before or after a store or waker call: `store.commit#7:after`. An undisturbed run names them all; then each
is visited. `crash`: the caller dies there, and whoever the platform calls next takes over. `duplicate`: the delivery
that is being handled is delivered to another instance at that very moment, which runs as far as it gets before the
first goes on. `late`: everything stands still there for longer than the lease, another instance takes over, and then
the first goes on as if nothing had happened. After each run the result, the recorded values, the steps that ran and
every wake-up are compared with what must hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from everstep.errors import AlreadySettled, NotFound, StillPending
from everstep.promise import State
from everstep.registry import Seconds, milliseconds

from .oracle import Witness
from .platform import Queue
from .simulation import Mode, SimHandle, Simulation
from .world import Caller, Crashed, Stuck

if TYPE_CHECKING:
    from everstep.registry import App, Workflow

Variant = Literal["crash", "duplicate", "late"]
_BOTH: Any = object()
_DAY = 86_400_000
_TURNS = 200_000
_READS = ("store.load", "store.branch", "store.find", "store.due")


@dataclass(frozen=True, slots=True)
class Failure:
    """A point at which a run did not survive. `mode` and `steps_per_invocation` say in which world."""

    point: str
    variant: str
    mode: str
    steps_per_invocation: int | None
    what: str
    trace: str = ""

    def __str__(self) -> str:
        steps = "" if self.steps_per_invocation is None else f", {self.steps_per_invocation} step per invocation"
        return f"{self.variant} at {self.point} ({self.mode}{steps}): {self.what}"


@dataclass(slots=True)
class Report:
    """What came of it.

    Attributes:
        points: every crash point of the undisturbed runs, by name; the same name may exist in several modes.
        runs: how many runs there were.
        executions: for each step, how often the body of one step id ran in the worst case.
        undisturbed: the same without any disturbance.
        failures: what went wrong; empty if nothing did.
        result: of the undisturbed run; None if it raised.
        error: what the undisturbed run raised.
    """

    points: list[str] = field(default_factory=list)
    runs: int = 0
    executions: dict[str, int] = field(default_factory=dict)
    undisturbed: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    result: Any = None
    error: BaseException | None = None

    def __str__(self) -> str:
        worst = ", ".join(f"{name} {count}" for name, count in sorted(self.executions.items()))
        return f"{self.runs} runs over {len(self.points)} crash points; worst case of executions: {worst or 'none'}"


class _Visitor:
    """Counts points, and disturbs one."""

    def __init__(self, target: str = "", variant: str = "") -> None:
        self.target = target
        self.variant = variant
        self.sim: Simulation
        self.counts: Counter[str] = Counter()
        self.seen: list[tuple[str, tuple[Any, ...]]] = []
        self.fired = False
        self._effects = 0
        self._names: dict[tuple[str, str], str] = {}

    async def before(self, caller: Caller, point: str, subject: str) -> None:
        self.counts[point] += 1
        name = f"{point}#{self.counts[point]}"
        self._names[caller.name, point] = name
        await self._at(caller, f"{name}:before")

    async def after(self, caller: Caller, point: str, subject: str) -> None:
        if not point.startswith(_READS):
            self._effects += 1
        await self._at(caller, f"{self._names[caller.name, point]}:after")

    async def _at(self, caller: Caller, name: str) -> None:
        if not self.target:
            world = self.sim.world
            self.seen.append((name, (caller.client, self._effects, sum(world.executions.values()), world.clock.now())))
            return
        if self.fired or name != self.target:
            return
        self.fired = True
        world = self.sim.world
        world.tell(caller, self.variant, name)
        if self.variant == "crash":
            caller.crash()
            raise Crashed(caller.name)
        now = world.clock.now()
        if self.variant == "late":
            await world.hold(caller, now + world.platform.visibility + 30_000)
            return
        for receipt in list(caller.tasks.values()):
            world.platform.repeat(receipt.message)
        await world.hold(caller, now)


def crash_everywhere(
    app: App,
    workflow: Workflow[..., Any] | str,
    /,
    *args: Any,
    modes: Sequence[Mode] | None = None,
    steps_per_invocation: int | None = _BOTH,
    variants: Sequence[Variant] = ("crash", "duplicate", "late"),
    single_writer: bool = True,
    resumes: bool = False,
    others: Sequence[App] = (),
    settle: Mapping[str, Any] | None = None,
    script: Callable[[Simulation, SimHandle[Any]], object] | None = None,
    setup: Callable[[], object] | None = None,
    check: Callable[[Simulation, SimHandle[Any]], object] | None = None,
    id: str | None = None,
    lease: Seconds = 60,
    limit: Seconds = 366 * 86_400,
    raising: bool = True,
    **kwargs: Any,
) -> Report:
    """Run a workflow once undisturbed, then once for each point and each variant, and compare.

    Args:
        modes: the platform models to run on; all that go with the store by default.
        steps_per_invocation: None or a number; both None and 1 unless given.
        variants: what happens at a point; see the module.
        single_writer: False for a store that checks neither guards nor soft fences.
        resumes: True for a store that acquires and loads in one request, in the mode "rows".
        others: Apps with functions of their own on the same store.
        settle: promises to resolve from outside as soon as they are pending: id (`{id}` stands for the run's) to value.
        script: called whenever nothing is left to do at the present instant; may settle, and may let time pass.
        setup: called before every run; resets what stands in for the outside world.
        check: called after every run; raises AssertionError where something outside is not as it must be.
        id: of the run; the workflow's name and `-1` by default.
        limit: seconds or timedelta of virtual time a run may take.
        raising: raise AssertionError if anything failed; otherwise the report tells.

    Raises:
        AssertionError: a point was not survived; the message lists the points.
        StillPending: the undisturbed run itself does not end.
    """
    report = Report()
    if modes is None:
        modes = ("rows", "queue") if single_writer else ("queue",)
    chosen: tuple[int | None, ...] = (None, 1) if steps_per_invocation is _BOTH else (steps_per_invocation,)
    first: tuple[Any, ...] | None = None
    visits = _Visits(
        app,
        workflow,
        args,
        kwargs,
        settle or {},
        script,
        setup,
        check,
        id,
        lease,
        limit,
        single_writer,
        resumes,
        others,
    )
    for mode in modes or ():
        for steps in chosen:
            plan = _Visitor()
            outcome, problems, sim = visits.run(plan, mode, steps, report)
            _note_executions(report.undisturbed, sim)
            if outcome[0] == "pending":
                raise StillPending(f"undisturbed, the run does not end ({outcome[1]}):\n{sim.trace()}")
            if first is None:
                first = outcome
                report.result = outcome[1] if outcome[0] == "returned" else None
                report.error = outcome[1] if outcome[0] == "raised" else None
            if not _same(outcome, first):
                problems.insert(0, f"{_show(outcome)}, not {_show(first)}, with no disturbance at all")
            report.failures += [Failure("nowhere", "undisturbed", mode, steps, what, sim.trace()) for what in problems]
            report.points += [name for name, _ in plan.seen]
            for variant in variants:
                for name in _worth_a_visit(plan.seen, variant):
                    visitor = _Visitor(name, variant)
                    outcome, problems, sim = visits.run(visitor, mode, steps, report)
                    if not visitor.fired:
                        problems.append("the run never came there: what a step does depends on something outside")
                    if not _same(outcome, first):
                        problems.insert(0, f"{_show(outcome)}, not {_show(first)}")
                    report.failures += [Failure(name, variant, mode, steps, what, sim.trace()) for what in problems]
    if raising and report.failures:
        raise AssertionError(_explain(report))
    return report


def _worth_a_visit(seen: Sequence[tuple[str, tuple[Any, ...]]], variant: Variant) -> list[str]:
    """Every point but those that are the same as another: nothing was written and no step ran in between.

    To die before a read, after it, or after the write before it is one death. To be overtaken matters where one is
    about to write, and to be late also where one has just written.
    """
    chosen: list[str] = []
    last: tuple[Any, ...] | None = None
    for name, state in seen:
        if variant == "crash":
            if state != last:
                chosen.append(name)
            last = state
        elif not name.startswith(_READS) and (variant == "late" or name.endswith(":before")):
            chosen.append(name)
    return chosen


class _Visits:
    def __init__(
        self,
        app: App,
        workflow: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        settle: Mapping[str, Any],
        script: Callable[[Simulation, SimHandle[Any]], object] | None,
        setup: Callable[[], object] | None,
        check: Callable[[Simulation, SimHandle[Any]], object] | None,
        id: str | None,
        lease: Seconds,
        limit: Seconds,
        single_writer: bool,
        resumes: bool,
        others: Sequence[App],
    ) -> None:
        self.app = app
        self.workflow = workflow
        self.args = args
        self.kwargs = kwargs
        self.settle = settle
        self.script = script
        self.setup = setup
        self.check = check
        self.id = id
        self.lease = lease
        self.limit = milliseconds(limit, "limit")
        self.single_writer = single_writer
        self.resumes = resumes
        self.others = others

    def run(
        self, visitor: _Visitor, mode: Mode, steps: int | None, report: Report
    ) -> tuple[tuple[Any, ...], list[str], Simulation]:
        """One run; how it ended, and what was wrong with it."""
        if self.setup is not None:
            self.setup()
        sim = Simulation(
            self.app,
            mode=mode,
            steps_per_invocation=steps,
            lease=self.lease,
            director=visitor,
            single_writer=self.single_writer,
            resumes=self.resumes and mode == "rows",
            others=self.others,
        )
        visitor.sim = sim
        witness = Witness(sim.world)
        report.runs += 1
        problems: list[str] = []
        outcome: tuple[Any, ...]
        try:
            handle = sim.start(self.workflow, *self.args, id=self.id, **self.kwargs)
            settle = {id.replace("{id}", handle.id): value for id, value in self.settle.items()}
            outcome = self._follow(sim, handle, settle, witness)
            problems += _leftovers(sim, self.limit)
            witness.check_wakes()
            if self.check is not None:
                self.check(sim, handle)
        except Stuck as error:
            outcome = ("stuck", str(error))
        except AssertionError as error:
            problems.append(f"check: {error}")
        finally:
            sim.close()
        problems += witness.problems
        _note_executions(report.executions, sim)
        return outcome, problems, sim

    def _follow(
        self, sim: Simulation, handle: SimHandle[Any], settle: dict[str, Any], witness: Witness
    ) -> tuple[Any, ...]:
        until = sim.now_ms + self.limit
        world = sim.world
        turns = 0
        while not sim._finished(handle.id):
            turns += 1
            if turns > _TURNS:
                raise Stuck(f"still not done after {turns} turns:\n{sim.trace()}")
            before = (sim.now_ms, len(sim.events))
            if world.turn(world.clock.now()):
                continue
            witness.check_wakes()
            for id in [id for id in settle if _open(sim, id)]:
                try:
                    sim.resolve(id, settle.pop(id))
                except (AlreadySettled, NotFound):
                    pass
            if self.script is not None:
                self.script(sim, handle)
            if (sim.now_ms, len(sim.events)) == before and not world.turn(until):
                task = handle.record().task
                return "pending", f"waiting for {handle.waiting_for}; {task.reason if task is not None else ''}"
        try:
            return "returned", handle.result()
        except Exception as error:
            return "raised", error


def _open(sim: Simulation, id: str) -> bool:
    row = sim.world.store._rows.get(id)
    return row is not None and row.state == State.PENDING.value


def _leftovers(sim: Simulation, limit: int) -> list[str]:
    """Let everything that is still on its way arrive; what comes for ever for runs that are settled is a leak."""
    world = sim.world
    until = sim.now_ms + min(limit, 7 * _DAY)
    for _ in range(20_000):
        if not any(_stale(sim, one) for one in _pending_ids(sim)) and world.idle:
            return []
        if not world.turn(until):
            break
    return [f"{id}: settled long ago, and its wake-up still comes" for id in _pending_ids(sim) if _stale(sim, id)]


def _pending_ids(sim: Simulation) -> list[str]:
    platform = sim.world.platform
    if isinstance(platform, Queue):
        return [one.wake.id for one in platform.messages.values()]
    return list(sim.world.store._due)


def _stale(sim: Simulation, id: str) -> bool:
    row = sim.world.store._rows.get(id)
    return row is None or row.state != State.PENDING.value


def _note_executions(into: dict[str, int], sim: Simulation) -> None:
    for (name, _), count in sim.world.executions.items():
        into[name] = max(into.get(name, 0), count)


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    if one[0] != other[0]:
        return False
    if one[0] == "raised":
        return (type(one[1]).__name__, str(one[1])) == (type(other[1]).__name__, str(other[1]))
    return bool(one[1] == other[1])


def _show(outcome: tuple[Any, ...]) -> str:
    how, what = outcome
    if how == "raised":
        return f"it raised {type(what).__name__}: {what}"
    if how == "returned":
        return f"it returned {what!r}"
    return f"it is {how} ({what})"


def _explain(report: Report) -> str:
    shown = report.failures[:20]
    lines = [f"{len(report.failures)} failures in {report.runs} runs:", *[f"  {failure}" for failure in shown]]
    if len(report.failures) > len(shown):
        lines.append(f"  and {len(report.failures) - len(shown)} more")
    lines += ["the first of them:", shown[0].trace]
    return "\n".join(lines)


__all__ = ["Failure", "Report", "crash_everywhere"]
