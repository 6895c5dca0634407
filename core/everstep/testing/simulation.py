"""A function platform on a virtual clock, for plain synchronous tests.

`Simulation` starts runs, lets time pass, settles promises, kills instances, and says what it cost. No real time passes:
three years are as fast as their wake-ups are few. The same App, seed and calls give the same history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from everstep import events
from everstep.client import Client, Handle
from everstep.clock import to_datetime
from everstep.errors import AlreadySettled, NotFound, PlatformError, StillPending
from everstep.ids import origin_of
from everstep.ports import Wake
from everstep.promise import Record, State, TaskState, project
from everstep.registry import App, Seconds, Workflow, milliseconds
from everstep.rows import from_row

from .world import SETTLE_DELAY, Caller, Crashed, Director, Event, Tally, World, size

if TYPE_CHECKING:
    from everstep.views import PromiseView, TreeView

    from .faults import Faults

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Mode = Literal["rows", "queue"]
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run has taken so far.

    Attributes:
        requests: of the functions to the store, by kind: load, branch, commit, due, find, delete.
        wakeups: armed, sent, disarmed and delivered wake-ups, by kind.
        rows_read, rows_written: rows that crossed the port; `characters_*` their text, close to bytes.
        invocations: how often the run, or a run below it, was acquired.
        steps: writes of each step's record, by id.
        outside: requests and wake-ups of clients, by kind.
    """

    requests: dict[str, int]
    wakeups: dict[str, int]
    rows_read: int
    rows_written: int
    characters_read: int
    characters_written: int
    invocations: int
    steps: dict[str, int]
    outside: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Requests to the store, all kinds together."""
        return sum(self.requests.values())

    @property
    def per_step(self) -> float:
        """Requests for each recorded step."""
        return self.total / len(self.steps) if self.steps else float(self.total)


_WAKEUPS = ("armed", "sent", "disarmed", "delivered")


class SimHandle(Generic[T_co]):
    """A run in a simulation, by its id."""

    def __init__(self, sim: Simulation, handle: Handle[T_co]) -> None:
        self.sim = sim
        self.id = handle.id
        self._handle = handle

    def result(self) -> T_co:
        """The run's result, once what is due now was delivered; time stands still.

        Raises:
            StillPending: it is not there yet; let time pass, or settle what it waits for.
            Halted: the run was halted.
            Exception: what the workflow raised.
        """
        if not self.sim._finished(self.id):
            self.sim.run_until_idle()
        return self.sim._outside(lambda client: Handle(client, self.id, self._handle._workflow).result(timeout=0))

    def status(self) -> str:
        """The state of the promise: pending, resolved, rejected, rejected_canceled or rejected_timedout."""
        return self.record().state.value

    def record(self) -> Record:
        """The run's record. Raises NotFound."""
        return self.sim.record(self.id)

    @property
    def done(self) -> bool:
        """Whether it is settled, one way or another."""
        return self.record().state is not State.PENDING

    @property
    def halted(self) -> bool:
        task = self.record().task
        return task is not None and task.state is TaskState.HALTED

    @property
    def waiting_for(self) -> list[str]:
        """Ids of the promises and timers the suspended run waits for."""
        from everstep.promise import leaves

        task = self.record().task
        return leaves(task.tree) if task is not None and task.tree is not None else []

    @property
    def history(self) -> list[str]:
        """Ids in the order in which their completions reached the body, of the run's last generation."""
        return self.sim._history(self.id)

    def tree(self) -> TreeView:
        """The run and everything its execution created."""
        return self.sim._outside(lambda client: client.tree(self.id))

    def cost(self) -> Cost:
        """What the run has taken so far, with everything below it under its id."""
        return self.sim.cost(self.id)

    def executions(self, name: str | None = None) -> dict[str, int]:
        """How often the body of each step ran, by id; of the steps called `name` only, if given."""
        prefix = f"{self.id}."
        return {
            id: count
            for (step, id), count in self.sim.world.executions.items()
            if (id == self.id or id.startswith(prefix)) and (name is None or step == name)
        }

    def __repr__(self) -> str:
        return f"<run {self.id} {self.status()}>"


class Simulation:
    """An App on a simulated platform.

    Args:
        app: what runs.
        seed: of everything that is left to chance; the same seed gives the same history.
        instances: how many processes of the function take deliveries, of each App.
        others: Apps with functions of their own on the same store: what `options(target=)` addresses to them is theirs.
        faults: what goes wrong and how often; None: nothing does.
        steps_per_invocation: end an invocation after so many checkpoints; None: when the body waits.
        mode: "rows": a scheduler reads the store's due rows; "queue": a durable message queue alone, which is stricter.
        lease: seconds or timedelta for which an acquired run belongs to its holder.
        budget: seconds an invocation may live; None for no limit.
        single_writer: False for a store that checks neither guards nor soft fences, like DynamoDB and Firestore.
        resumes: True for a store that acquires and loads in one request, like Postgres; in the mode "rows".
        cache: how many suspended bodies an instance keeps warm.
        heartbeat: instances renew their leases while steps run.
        fold_after: by how many deliveries a history grows until it is folded; small, it is folded all the time.
        tokens: False for a queue whose messages cannot be taken back.
    """

    def __init__(
        self,
        app: App,
        seed: int = 0,
        *,
        instances: int = 1,
        others: Sequence[App] = (),
        faults: Faults | None = None,
        steps_per_invocation: int | None = None,
        mode: Mode = "rows",
        lease: Seconds = 60,
        budget: Seconds | None = None,
        single_writer: bool = True,
        resumes: bool = False,
        cache: int = 64,
        heartbeat: bool = False,
        fold_after: int = 512,
        tokens: bool = True,
        director: Director | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "steps_per_invocation": steps_per_invocation,
            "cache": cache,
            "heartbeat": heartbeat,
            "fold_after": fold_after,
        }
        if budget is not None:
            options["budget"] = milliseconds(budget, "budget")
        self.app = app
        self.world = World(
            app,
            seed=seed,
            instances=instances,
            others=others,
            mode=mode,
            lease=milliseconds(lease, "lease"),
            single_writer=single_writer,
            resumes=resumes,
            options=options,
            director=director,
            tokens=tokens,
            settle_delay=SETTLE_DELAY if faults is None else 1000,
        )
        if faults is not None:
            faults.install(self.world)
        self._clients = 0
        self._started: Counter[str] = Counter()
        self._caller: Caller | None = None
        self._client: Client | None = None
        self._journals: dict[str, list[str]] = {}
        self.world.writers.append(self._watch)

    # Starting and settling.

    @overload
    def start(
        self,
        workflow: Workflow[..., T],
        /,
        *args: Any,
        id: str | None = None,
        timeout: Seconds | None = None,
        tags: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> SimHandle[T]: ...
    @overload
    def start(
        self,
        workflow: str,
        /,
        *args: Any,
        id: str | None = None,
        timeout: Seconds | None = None,
        tags: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> SimHandle[Any]: ...
    def start(
        self,
        workflow: Any,
        /,
        *args: Any,
        id: str | None = None,
        timeout: Seconds | None = None,
        tags: Mapping[str, str] | None = None,
        on_conflict: Any = "raise",
        **kwargs: Any,
    ) -> SimHandle[Any]:
        """Start a run; it begins when time is given to it (`run_until_idle`, `advance`, `run`).

        Args:
            id: without a dot; by default the workflow's name and a number (`order-1`).
            timeout: seconds or timedelta.
            tags: for `search`.

        Raises:
            As `Client.start`.
        """
        if id is None:
            name = workflow if isinstance(workflow, str) else getattr(workflow, "name", "run")
            self._started[name] += 1
            id = f"{name}-{self._started[name]}"
        handle = self._outside(
            lambda client: client._start(
                workflow, args, kwargs, id=id, on_conflict=on_conflict, timeout=timeout, tags=tags, target=None
            )
        )
        return SimHandle(self, handle)

    def handle(self, id: str) -> SimHandle[Any]:
        """A run by its id, whether it exists or not."""
        return SimHandle(self, self.client.handle(id))

    def dispatch(self, event: events.Event) -> list[SimHandle[Any]]:
        """Deliver an event to the App's triggers (`App.on`); the runs it started. Raises EventRefused."""
        ids = self._outside(lambda client: events.dispatch(client, self.app, event))
        return [self.handle(id) for id in ids]

    def resolve(self, id: str, value: Any = None) -> PromiseView:
        """Settle a promise with a value. Raises NotFound, AlreadySettled, NotSerializable."""
        return self._outside(lambda client: client.resolve(id, value))

    def reject(self, id: str, error: str | BaseException | Mapping[str, Any]) -> PromiseView:
        """Settle a promise with a failure. Raises NotFound, AlreadySettled."""
        return self._outside(lambda client: client.reject(id, error))

    def cancel(self, id: str) -> PromiseView:
        """Cancel a promise, or a run with its children. Raises NotFound, AlreadySettled."""
        return self._outside(lambda client: client.cancel(id))

    def schedule(self, id: str, cron: str, workflow: Workflow[..., Any] | str, *args: Any, **options: Any) -> Any:
        """Start a workflow at every tick of a cron. Arguments and errors as `Client.schedule`."""
        return self._outside(lambda client: client.schedule(id, cron, workflow, *args, **options))

    def unschedule(self, id: str) -> None:
        """Remove a schedule. Raises NotFound."""
        self._outside(lambda client: client.unschedule(id))

    def halt(self, id: str, reason: str = "") -> PromiseView:
        """Stop a run until somebody continues it. Raises NotFound, AlreadySettled."""
        return self._outside(lambda client: client.halt(id, reason))

    def continue_(self, id: str) -> PromiseView:
        """Set a halted run going again. Raises NotFound, AlreadySettled."""
        return self._outside(lambda client: client.continue_(id))

    def call(self, use: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        """Anything else a client can do: `sim.call(lambda client: client.verify())`."""
        return self._outside(use)

    # Time.

    @property
    def now(self) -> datetime:
        """The virtual time (UTC)."""
        return to_datetime(self.world.clock.now())

    @property
    def now_ms(self) -> int:
        """The virtual time in milliseconds since 1970."""
        return self.world.clock.now()

    def run_until_idle(self) -> None:
        """Deliver everything that is due now, and whatever follows from it; the clock stands still."""
        while self.world.turn(self.world.clock.now()):
            pass

    def advance(
        self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0, milliseconds: float = 0
    ) -> None:
        """Let time pass, delivering whatever falls due on the way, in order."""
        passed = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
        self.advance_to(self.now + passed)

    def advance_to(self, moment: datetime) -> None:
        """Let time pass until an aware datetime."""
        from everstep.clock import to_milliseconds

        until = to_milliseconds(moment)
        world = self.world
        while world.turn(until):
            pass
        if until > world.clock.now():
            world.clock.set(until)
            while world.turn(until):
                pass

    @overload
    def run(self, run: SimHandle[T], limit: Seconds = ...) -> T: ...
    @overload
    def run(self, run: str, limit: Seconds = ...) -> Any: ...
    def run(self, run: SimHandle[Any] | str, limit: Seconds = timedelta(days=36_500)) -> Any:
        """Let time jump from one due instant to the next until a run is settled, and return its result.

        Args:
            limit: seconds or timedelta of virtual time.

        Raises:
            StillPending: nothing would ever go on by itself, or not within `limit`.
            Halted: the run was halted.
            Exception: what the workflow raised.
        """
        handle = run if isinstance(run, SimHandle) else self.handle(run)
        until = self.world.clock.now() + milliseconds(limit, "limit")
        self.settle_down(lambda: self._finished(handle.id), until)
        return handle.result()

    def settle_down(self, done: Callable[[], bool], until: int) -> bool:
        """Turn until `done()`, or until nothing happens before `until` (milliseconds). Returns what `done` says."""
        world = self.world
        while not done():
            if not world.turn(until):
                return done()
        world.loop.drain()
        while not world.idle and world.turn(world.clock.now()):
            pass
        return True

    # Trouble on purpose.

    def cold(self) -> None:
        """Every instance forgets the bodies it keeps warm."""
        for instance in self.world.instances:
            instance.driver.cold()

    def kill(self) -> None:
        """Every instance dies now, whatever it is doing; fresh ones take the next deliveries."""
        self.world.kill()

    def close(self) -> None:
        """The end of this world: whoever is at work stops, and bodies that wait are let go."""
        for instance in self.world.instances:
            instance.crash(quiet=True)
        self.world.loop.drain()

    def redeliver(self, id: str) -> None:
        """Deliver a wake-up for a run once more, as platforms do now and then."""
        row = self.world.store._rows.get(id)
        task = from_row(row).task if row is not None else None
        self.world.platform.send(Wake(id, task.version if task is not None else 0))
        self.run_until_idle()

    # What there is.

    @property
    def client(self) -> Client:
        """An asynchronous client of this world; its calls are for `call`."""
        if self._client is None or self._caller is None or not self._caller.alive:
            self._clients += 1
            self._caller = Caller(self.world, f"client{self._clients}", client=True)
            self._client = Client(
                self._caller.store,
                self._caller.waker,
                app=self.app,
                clock=self._caller.clock,
                service=self._caller.service,
            )
        return self._client

    def record(self, id: str) -> Record:
        """The record of an id as it shows now. Raises NotFound."""
        row = self.world.store._rows.get(id)
        if row is None:
            raise NotFound(f"no promise {id!r}")
        return project(from_row(row), self.world.clock.now())

    def records(self, id: str | None = None) -> dict[str, Record]:
        """Every record under an id, itself included, or every record there is; as stored, in id order."""
        rows = self.world.store._rows
        prefix = f"{id}."
        return {
            other: from_row(rows[other])
            for other in sorted(rows)
            if id is None or other == id or other.startswith(prefix)
        }

    @property
    def events(self) -> list[Event]:
        """What happened, in order."""
        return self.world.events

    @property
    def executions(self) -> dict[str, int]:
        """How often step bodies ran, by name of the step."""
        total: Counter[str] = Counter()
        for (name, _), count in self.world.executions.items():
            total[name] += count
        return dict(total)

    def cost(self, id: str | None = None) -> Cost:
        """What a run, or everything together, has taken so far."""
        tallies = self.world.tallies
        inside = Tally()
        outside: Counter[str] = Counter()
        for (origin, client), tally in tallies.items():
            if id is not None and origin != origin_of(id):
                continue
            if client:
                outside.update(tally.counts)
                continue
            inside.counts.update(tally.counts)
            inside.writes.update(tally.writes)
            inside.read += tally.read
            inside.written += tally.written
            inside.invocations += tally.invocations
        steps = {key for _, key in self.world.executions}
        return Cost(
            {kind: count for kind, count in sorted(inside.counts.items()) if kind not in _WAKEUPS},
            {kind: inside.counts[kind] for kind in _WAKEUPS},
            len(inside.read),
            len(inside.written),
            size(inside.read),
            size(inside.written),
            inside.invocations,
            {key: count for key, count in inside.writes.items() if key in steps},
            dict(outside),
        )

    def trace(self, last: int = 60) -> str:
        """The last events as text."""
        return self.world.trace(last)

    # Inside.

    def _finished(self, id: str) -> bool:
        row = self.world.store._rows.get(id)
        if row is None:
            return False
        if row.state != State.PENDING.value:
            return True
        task = from_row(row).task
        return task is not None and task.state is TaskState.HALTED

    def _outside(self, use: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        """A caller that got no answer asks again."""
        for _ in range(_ATTEMPTS):
            try:
                return self.world.complete(use(self.client))
            except Crashed:
                self._client = None
            except PlatformError:
                if self.world.director is None:
                    raise
        return self.world.complete(use(self.client))

    def _watch(self, caller: Caller, commit: Any, before: Any) -> None:
        """Keep the history of a run that is settled: its record no longer says it."""
        for put in commit.puts:
            row = put.row
            if row.task is not None and row.state != State.PENDING.value:
                old = before.get(row.id)
                if old is not None and old.state == State.PENDING.value:
                    self._journals[row.id] = self._read_history(from_row(old))

    def _history(self, id: str) -> list[str]:
        if id in self._journals:
            return self._journals[id]
        return self._read_history(self.record(id))

    def _read_history(self, record: Record) -> list[str]:
        from everstep.journal import read

        if record.task is None:
            return []
        rows = [row for row in self.world.store._rows.values() if row.branch == record.id]
        reading = read(record, rows, self.app.codec, self.world.clock.now())
        try:
            reading.send(None)
        except StopIteration as stop:
            history: list[str] = stop.value.history.ids()
            return history
        reading.close()
        return []


__all__ = ["AlreadySettled", "Cost", "SimHandle", "Simulation", "StillPending"]
