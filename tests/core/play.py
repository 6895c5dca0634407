"""A workflow body played by hand: given this journal, the body runs, then exactly these commands and nothing more.

Nothing here is durable. A test settles operations in the order it likes; `replays` then plays the same body again from
every prefix of what was delivered, as a cold instance would, and demands that nobody can tell the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from everstep import App, Context, Retry, Workflow
from everstep.context import ContinueAsNew
from everstep.engine import Body
from everstep.failures import describe as describe_error
from everstep.operation import Completion, Recorded, describe, plain_call
from everstep.past import Past
from everstep.promise import Kind, State, Tree


class Delivery(NamedTuple):
    """One completion, as the record holds it."""

    id: str
    kind: str
    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    state: State
    value: Any
    at: int


class Trace(list[Any]):
    """What a body has said; `say` appends to it."""


def say(ctx: Context, what: Any) -> None:
    ctx.dependency(Trace).append(what)


def workflow_named(ctx: Context, name: str) -> Workflow[..., Any]:
    """A workflow given to the play, as the body's module would have it by its name."""
    return next(one for one in ctx._body.app.workflows if one.name == name)


def step(id: str, name: str, *args: Any, value: Any = None, at: int = 0, **kwargs: Any) -> Delivery:
    return Delivery(id, Kind.STEP, name, list(args), kwargs, State.RESOLVED, value, at)


def rpc(id: str, name: str, *args: Any, value: Any = None, at: int = 0, **kwargs: Any) -> Delivery:
    return Delivery(id, Kind.RPC, name, list(args), kwargs, State.RESOLVED, value, at)


def child(id: str, name: str, *args: Any, value: Any = None, at: int = 0, **kwargs: Any) -> Delivery:
    return Delivery(id, Kind.CHILD, name, list(args), kwargs, State.RESOLVED, value, at)


def promise(id: str, *, value: Any = None, at: int = 0) -> Delivery:
    return Delivery(id, Kind.PROMISE, "", [], {}, State.RESOLVED, value, at)


def timer(id: str, at: int) -> Delivery:
    return Delivery(id, Kind.TIMER, "", [], {}, State.RESOLVED, None, at)


def call_of(delivery: Delivery) -> list[Any]:
    call = [delivery.name, delivery.args]
    return [*call, delivery.kwargs] if delivery.kwargs else call


def failed(delivery: Delivery, error: BaseException) -> Delivery:
    return delivery._replace(state=State.REJECTED, value=describe_error(error))


class Play:
    """One life of a body.

    Args:
        fn: a workflow function.
        journal: what history delivers.
        pending: what the store knows and history does not deliver, as deliveries of which only the call counts.
        armed: timers of the last suspension.
        workflows: functions that `fn` may call by name or as children.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *args: Any,
        journal: Iterable[Delivery] = (),
        pending: Iterable[Delivery] = (),
        armed: dict[str, int] | None = None,
        workflows: Sequence[Callable[..., Any]] = (),
        steps: Sequence[Callable[..., Any]] = (),
        retry: Retry | None = None,
        id: str = "r",
        at: int = 0,
        generation: int = 1,
        live_from: int | None = None,
    ) -> None:
        self.given = (fn, args, workflows, steps, retry, id, at, generation)
        self.trace = Trace()
        app = App("play")
        app.provide(self.trace)
        for function in steps:
            app.step(function)
        for other in workflows:
            app.workflow(other)
        workflow: Workflow[..., Any] = app.workflow(retry=retry, name="body")(fn)
        app.provide(workflow)
        self.app = app
        self.deliveries: list[Delivery] = list(journal)
        self.body = Body(
            app,
            app.info(workflow),
            id,
            args,
            {},
            generation=generation,
            created_at=at,
            created={one.id: Recorded(one.kind, call_of(one), State.PENDING, None) for one in pending},
            armed=armed,
        )
        self._timers: dict[str, int] = {}
        if not self.deliveries:
            self.body.first_life()
        past = Past(
            [one.id for one in self.deliveries],
            [one.at for one in self.deliveries],
            {
                one.id: Recorded(one.kind, call_of(one), one.state, one.value)
                for one in self.deliveries
                if one.kind != Kind.TIMER
            },
        )
        try:
            self.body.start(past, at, live_from=live_from)
        except BaseException:
            self.close()
            raise

    def commands(self) -> list[str]:
        """What the body asks for since the last call, nothing left out."""
        said: list[str] = []
        for op in self.body.take_new():
            said.append(f"{op.key} {describe(op)}" + (f" as {op.id}" if op.id != op.key else ""))
        timers = dict(self.body.timers)
        said += [f"{id} timer at {at}" for id, at in timers.items() if id not in self._timers]
        said += [f"{id} disarmed" for id in self._timers if id not in timers]
        self._timers = timers
        said += [f"{op.key} canceled" for op in self.body.take_cancellations()]
        for op, completion in self.body.take_ended_children():
            said.append(f"{op.key} ended {completion.state.value} {completion.value!r}")
        return said

    def settle(self, id: str, value: Any = None, *, state: State = State.RESOLVED, at: int = 0) -> None:
        op = self.body.ops[id]
        args, kwargs = plain_call(op.name, op.info, op.args, op.kwargs)
        if op.kind == Kind.PROMISE:
            args = list(op.args)
        self._deliver(Delivery(id, op.kind, op.name, args, kwargs, state, value, at))

    def fail(self, id: str, error: BaseException, *, at: int = 0) -> None:
        self.settle(id, describe_error(error), state=State.REJECTED, at=at)

    def cancel(self, id: str) -> None:
        """As somebody outside does."""
        self.settle(id, state=State.CANCELED)

    def fire(self, id: str | None = None) -> str:
        """The earliest timer fires, or this one."""
        chosen = id if id is not None else min(self.body.timers, key=lambda key: (self.body.timers[key], key))
        self._timers.pop(chosen, None)
        self._deliver(timer(chosen, self.body.timers[chosen]))
        return chosen

    def _deliver(self, one: Delivery) -> None:
        self.deliveries.append(one)
        self.body.deliver(one.id, one.at, Completion(one.state, one.value))

    @property
    def tree(self) -> Tree:
        return self.body.blocked_on()

    @property
    def waiting(self) -> list[str]:
        """Operations that are not done, timers included, by id."""
        return [*(id for id, op in self.body.ops.items() if not op.done()), *self.body.loop.timer_handles]

    @property
    def result(self) -> Any:
        """What the body returned; raises what it raised. It must have ended."""
        outcome = self.body.outcome()
        if isinstance(outcome, ContinueAsNew):
            return outcome
        if outcome.state is not State.RESOLVED:
            raise outcome.value
        return outcome.value

    def end(self) -> str:
        """How the body stands, in a comparable form."""
        if not self.body.returned:
            return "runs"
        outcome = self.body.outcome()
        return repr(outcome) if isinstance(outcome, ContinueAsNew) else f"{outcome.state.value} {outcome.value!r}"

    def picture(self) -> dict[str, Any]:
        """All that a replay must bring back."""
        body = self.body
        return {
            "trace": list(self.trace),
            "end": self.end(),
            "issued": body.scope.count,
            "waiting": sorted(f"{op.key} {describe(op)} {op.id}" for op in body.ops.values() if not op.done()),
            "timers": dict(body.timers),
            "tree": "" if body.returned else repr(self.tree),
            "now": body.now_ms,
        }

    def replays(self) -> None:
        """Play the same again from every prefix of what was delivered; nobody may be able to tell."""
        expected = self.picture()
        fn, args, workflows, steps, retry, id, at, generation = self.given
        for cut in range(len(self.deliveries) + 1):
            again = Play(
                fn,
                *args,
                journal=self.deliveries[:cut],
                workflows=workflows,
                steps=steps,
                retry=retry,
                id=id,
                at=at,
                generation=generation,
            )
            for one in self.deliveries[cut:]:
                again._deliver(one)
            assert again.picture() == expected, f"replayed from {cut} of {len(self.deliveries)} deliveries"
            again.close()

    def close(self) -> None:
        self.body.drop()
