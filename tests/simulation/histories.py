"""One seeded history: a few runs of the corpus on a world that goes wrong, and everything that must hold of it."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

from everstep.errors import AlreadySettled, NotFound
from everstep.promise import Kind, State, TaskState
from everstep.rows import from_row
from everstep.testing.faults import Faults
from everstep.testing.oracle import Witness
from everstep.testing.platform import Queue
from everstep.testing.simulation import SimHandle, Simulation
from everstep.testing.world import Stuck

from .corpus import SCENARIOS, Scenario, app, outside

TURNS = 5_000
PATIENCE = 900_000
"""Milliseconds after which somebody outside settles what is waited for."""


class Broken(AssertionError):
    """Something does not hold. The text has the seed and what happened last."""


class History:
    """A history, told by its seed alone.

    Attributes:
        problems: what did not hold, in words; empty where all did.
    """

    def __init__(self, seed: int, scenarios: list[Scenario] | None = None, **fixed: Any) -> None:
        self.seed = seed
        self.random = random = Random(f"history {seed}")
        self.options: dict[str, Any] = {
            "mode": random.choice(["rows", "queue"]),
            "instances": random.randint(1, 4),
            "steps_per_invocation": random.choice([None, None, 1, 2]),
            "single_writer": random.random() < 0.5,
            "tokens": random.random() < 0.5,
            "cache": random.choice([0, 1, 64, 64]),
            "lease": random.choice([60, 60, 5]),
            "heartbeat": random.random() < 0.2,
            "fold_after": Random(f"folds {seed}").choice([512, 3, 1]),
            "resumes": Random(f"resumes {seed}").random() < 0.5,
            **fixed,
        }
        if self.options["mode"] == "rows":
            self.options["single_writer"] = True
        else:
            self.options["resumes"] = False
        faults = self.options.pop("faults", None) or Faults().scaled(random.choice([0.3, 1, 1, 3]))
        self.runs = [random.choice(scenarios or SCENARIOS) for _ in range(random.choice([1, 1, 2, 3]))]
        self.sim = Simulation(app, seed, faults=faults, **self.options)
        self.witness = Witness(self.sim.world)
        self.problems: list[str] = []
        self.handles: list[SimHandle[Any]] = []

    def play(self) -> list[str]:
        """Let it happen, and judge it."""
        outside.begin(self.seed)
        try:
            self._play()
        except Stuck as error:
            self.problems.append(str(error).partition("\n")[0])
        finally:
            self.sim.close()
        self.problems += self.witness.problems
        return self.problems

    def check(self) -> None:
        """Play, and raise Broken where something does not hold."""
        if self.play():
            raise Broken(self.describe())

    def describe(self, last: int = 60) -> str:
        runs = ", ".join(f"{one.workflow.name}{one.args}" for one in self.runs)
        told = "\n".join(f"  {problem}" for problem in self.problems)
        return f"seed {self.seed}: {runs}\n  {self.options}\n{told}\n{self.sim.trace(last)}"

    def _play(self) -> None:
        sim = self.sim
        world = sim.world
        self.handles = [sim.start(one.workflow, *one.args, id=f"r{i}") for i, one in enumerate(self.runs)]
        for _ in range(TURNS):
            if not world.turn(world.clock.now()):
                self.witness.check_wakes()
                self._continue()
                if self._meddle(everything=False) or world.turn(world.clock.now() + PATIENCE):
                    continue
                if not self._meddle(everything=True) and not world.turn(2**52):
                    break
            elif self.random.random() < 0.02:
                self._meddle(everything=False)
        else:
            self.problems.append(f"not at rest after {TURNS} turns")
        self.witness.check_wakes()
        self._judge()

    def _continue(self) -> None:
        """A person sets going again what was halted because its invocations kept dying."""
        for id, record in self.sim.records().items():
            task = record.task
            if task is not None and task.state is TaskState.HALTED and "without progress" in (task.reason or ""):
                self._try(lambda id=id: self.sim.continue_(id))

    def _meddle(self, everything: bool) -> bool:
        """Somebody outside settles a latent promise, or one that is settled; True where there was one to settle."""
        rows = [row for row in self.sim.world.store._rows.values() if row.kind == Kind.PROMISE]
        latent = sorted(row.id for row in rows if row.state == State.PENDING.value)
        if rows and self.random.random() < 0.05:
            chosen = self.random.choice(sorted(row.id for row in rows))
            self._try(lambda: self.sim.resolve(chosen, told(chosen) if chosen in latent else "told otherwise"))
        if not latent or (not everything and self.random.random() < 0.5):
            return False
        chosen = self.random.choice(latent)
        self._try(lambda: self.sim.resolve(chosen, told(chosen)))
        return True

    def _try(self, call: Any) -> None:
        try:
            call()
        except (AlreadySettled, NotFound):
            pass

    def _judge(self) -> None:
        sim = self.sim
        for row in sim.world.store._rows.values():
            if row.task is not None and row.state == State.PENDING.value:
                record = from_row(row)
                task = record.task
                assert task is not None
                self.problems.append(
                    f"{row.id} never ended: {task.state.value}, {task.reason or sim.handle(row.id).waiting_for}"
                )
        for one, handle in zip(self.runs, self.handles, strict=True):
            if one.confluent and handle.done:
                got = ending(handle)
                if got != undisturbed(one):
                    self.problems.append(f"{handle.id}: {got}, undisturbed {undisturbed(one)}")
        if isinstance(sim.world.platform, Queue) and sim.world.platform.messages:
            self.problems.append(f"left over: {list(sim.world.platform.messages.values())}")
        if self.options["single_writer"]:
            for id, calls in outside.calls.items():
                if len(set(calls)) > 1:
                    self.problems.append(f"{id} ran as {sorted(set(calls))}: a body saw what was not durable")


def told(id: str) -> str:
    return f"told {id.partition('.')[2]}"


def ending(handle: SimHandle[Any]) -> tuple[str, str]:
    try:
        return "returned", repr(handle.result())
    except Exception as error:
        return type(error).__name__, str(error)


@cache
def undisturbed(one: Scenario) -> tuple[str, str]:
    """How a run ends where nothing goes wrong."""
    calls, chance = outside.calls, outside.random
    outside.begin(0)
    sim = Simulation(app)
    handle = sim.start(one.workflow, *one.args, id="r")
    while sim.world.turn(sim.now_ms + PATIENCE) or _answer(sim):
        pass
    outside.calls, outside.random = calls, chance
    return ending(handle)


def _answer(sim: Simulation) -> bool:
    for row in list(sim.world.store._rows.values()):
        if row.kind == Kind.PROMISE and row.state == State.PENDING.value:
            sim.resolve(row.id, told(row.id))
            return True
    return False
