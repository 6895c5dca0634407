"""Replay: a workflow body, run on the deterministic loop against settled promises.

The engine performs no I/O and knows no store. Completions reach the body one at a time, and the body runs to
quiescence after each (rule P2); then the engine says what it wants carried out, what it waits for, or how it ended.
What a body may depend on is closed: arguments, recorded values, recorded order.
"""

from __future__ import annotations

import math
from asyncio import tasks
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .calling import PASS, call_inline, call_workflow
from .context import NO_OPTIONS, ContinueAsNew, Options, Scope, current_scope, nested_scope
from .errors import (
    DecodeError,
    InvalidArgument,
    NondeterminismError,
    PromiseCanceled,
    UnknownFunction,
)
from .ids import child_prefix, detached_id
from .loop import Loop
from .operation import (
    Cells,
    Completion,
    DurableFuture,
    Recorded,
    describe,
    describe_recorded,
    encode_call,
    failure,
    plain_call,
)
from .past import Delivery, Past
from .promise import RESOLVED, Kind, State, Tree
from .waits import tree_of

if TYPE_CHECKING:
    from .codec import Codec
    from .registry import App, FunctionInfo, Workflow

_ATOMS = frozenset({str, int, float, bool, type(None)})
_NO_KWARGS: dict[str, Any] = {}
_FIRED = Completion(State.RESOLVED, None)


class Body:
    """One workflow body and everything it has asked for.

    Args:
        app: where functions and dependencies are found.
        info: the workflow.
        id: the task's id.
        args, kwargs: coerced arguments.
        codec: how values become text; the App's by default.
        generation: which life after `continue_as_new` (rule I5).
        created_at: of the run, in milliseconds.
        created: operations known to the store that history does not deliver yet, by id.
        armed: timers of the last suspension, by id.
    """

    def __init__(
        self,
        app: App,
        info: FunctionInfo,
        id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        codec: Codec | None = None,
        generation: int = 1,
        created_at: int = 0,
        created: Mapping[str, Recorded] | None = None,
        armed: Mapping[str, int] | None = None,
    ) -> None:
        assert info.workflow is not None
        self.app = app
        self.codec = codec if codec is not None else app.codec
        self.info = info
        self.workflow: Workflow[..., Any] = info.workflow
        self.id = id
        self.generation = generation
        self.created_at = created_at
        self.now_ms = created_at
        self.began_at = created_at
        self.loop = Loop(self)  # type: ignore[abstract]  # what it lacks, it refuses
        self.scope = Scope(self, id, child_prefix(id, generation))
        self.ops: dict[str, DurableFuture[Any]] = {}
        self.timers: dict[str, int] = {}
        self.new: list[DurableFuture[Any]] = []
        self.ended_children: list[tuple[DurableFuture[Any], Completion]] = []
        self.cancellations: list[DurableFuture[Any]] = []
        self.delivered = 0
        self.replaying = True
        self.next_key: str | None = None
        self._created = dict(created) if created is not None else {}
        self._armed = dict(armed) if armed is not None else {}
        self._past = Past()
        self._ahead: Iterator[Delivery] = iter(())
        self._next_at = 0
        self._next_record: Cells | None = None
        self._live_from = 0
        self._disarmed: set[str] = set()
        self._args = args
        self._kwargs = kwargs
        self._main: tasks.Task[Any] | None = None

    def start(self, history: Past, at: int, *, live_from: int | None = None) -> None:
        """Run the body from its beginning through its history.

        Args:
            at: the instant at which the body began, in milliseconds.
            live_from: how much of the history earlier invocations delivered; what follows is new, and logged.

        Raises:
            DecodeError: what is recorded cannot be read.
            NondeterminismError: the body does something else than the record says.
            RealIOError, Panic: as the body raised them.
        """
        self.began_at = at
        self.now_ms = max(self.now_ms, at)
        self._live_from = len(history) if live_from is None else live_from
        self._past = history
        self._ahead = iter(history)
        self.next_key, self._next_at, self._next_record = next(self._ahead)
        self._main = self.loop.create_task(call_workflow(self.scope, self.info, self._args, self._kwargs), name="main")
        self.loop.drain()
        while (id := self.next_key) is not None:
            instant, record = self._next_at, self._next_record
            self.advance()
            self._deliver(id, instant, None, record)
        self._past, self._ahead = Past(), iter(())
        missing = next(iter(self._created), None)
        if missing is not None:
            self._diverge(missing, describe_recorded(self._created[missing]), "no such operation")
        missing = next((id for id in self._armed if id not in self.timers), None)
        if missing is not None and self._armed:
            self._diverge(missing, "a timer", "no such operation")
        self._armed = {}

    def first_life(self) -> None:
        """Nothing ran before: the body may log from its first line on."""
        self.replaying = False

    def deliver(self, id: str, at: int, completion: tuple[State, Any]) -> None:
        """Hand one completion to the body and run it to quiescence. Its value is plain JSON."""
        self.replaying = False
        self.delivered += 1
        self._deliver(id, at, completion)

    def fire(self, id: str, at: int) -> None:
        """Let a timer of this body fire."""
        self.deliver(id, at, _FIRED)

    def take_new(self) -> list[DurableFuture[Any]]:
        """Operations the body has issued since the last call and still wants."""
        if not self.new:
            return []
        fresh, self.new = self.new, []
        if len(fresh) == 1 and not fresh[0].done():
            return fresh
        return [op for op in fresh if op.key in self.ops and not op.done()]

    def take_ended_children(self) -> list[tuple[DurableFuture[Any], Completion]]:
        """Inline children that have ended and are not recorded yet."""
        ended, self.ended_children = self.ended_children, []
        return [(op, completion) for op, completion in ended if op.key in self.ops and not op.done()]

    def take_cancellations(self) -> list[DurableFuture[Any]]:
        """Operations the body has cancelled since the last call."""
        if not self.cancellations:
            return []
        gone, self.cancellations = self.cancellations, []
        return gone

    @property
    def returned(self) -> bool:
        """Whether the body itself has ended, whatever it left behind."""
        return self._main is not None and self._main.done()

    def leftovers(self) -> list[str]:
        """Operations a body that has ended must still see finished: what it started with run, rpc and detached."""
        return [
            id
            for id, op in self.ops.items()
            if not op.done() and op.kind in (Kind.STEP, Kind.CHILD, Kind.RPC, Kind.DETACHED)
        ]

    def abandoned(self) -> list[DurableFuture[Any]]:
        """Latent promises that a body which has ended no longer waits for."""
        return [op for op in self.ops.values() if not op.done() and op.kind == Kind.PROMISE]

    def outcome(self) -> Completion | ContinueAsNew:
        """How the body ended. `value` is the live result or the live exception."""
        assert self._main is not None
        if self._main.cancelled():
            return Completion(State.REJECTED, PromiseCanceled(f"{self.id} cancelled itself"))
        error = self._main.exception()
        if error is not None:
            if isinstance(error, PASS):
                raise error
            return Completion(State.REJECTED, error)
        value = self._main.result()
        return value if isinstance(value, ContinueAsNew) else Completion(State.RESOLVED, value)

    def blocked_on(self) -> Tree:
        """What the body waits for, as data (rule P5): any of its groups; a group is all only where that is certain."""
        left = self.leftovers() if self.returned else []
        # Inline children wait for what their own bodies wait for.
        finished = tuple([id for id in left if self.ops[id].kind != Kind.CHILD])
        if self.returned and len(finished) == len(left):
            return ("all", *left)
        waiting = [(id, op._callbacks or ()) for id, op in self.ops.items() if not op.done()]
        return tree_of(waiting, self.loop.timer_handles, finished)

    def drop(self) -> None:
        """Let go of the body; nothing of it runs again, but what a `finally` does without asking for anything."""
        self.replaying = True
        self.loop.abandon()

    # Operations, as the context calls them.

    def run(
        self, scope: Scope, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> DurableFuture[Any]:
        info = self.app._infos.get(fn)
        if info is None:
            info = self.app.info(fn)
        if options.id is not None:
            return self.invoke(scope, Kind.RPC, fn, args, kwargs, options)
        kind = Kind.STEP if info.workflow is None else Kind.CHILD
        op: DurableFuture[Any] = DurableFuture(loop=self.loop)
        op.body = self
        op.key = op.id = id = scope.next_id()
        op.kind = kind
        op.name = info.name
        op.info = info
        op.args = args
        op.kwargs = kwargs
        op.options = options
        # A sequence of steps meets its records in order, where the next one is a position and not a search.
        next_key = self.next_key
        record = self._next_record if next_key is None or id == next_key else self._expected(id)
        op._record = record
        if record is None:
            self._issue(op)
        else:
            call = record[1]
            if (
                call[0] != info.name or call[1] != list(args) or record[0] != kind or kwargs or len(call) != 2
            ) and not self._same_work(op, record):
                self._diverge(id, describe_recorded(record), describe(op))
        self.ops[id] = op
        if kind == Kind.CHILD:
            op.at = self.now_ms
            child = nested_scope(self, id)
            call_args, call_kwargs = self.isolate(info, args, kwargs)
            op.runner = self.loop.create_task(call_inline(op, child, info, call_args, call_kwargs), name=id)
        return op

    def invoke(
        self, scope: Scope, kind: str, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> DurableFuture[Any]:
        op: DurableFuture[Any] = DurableFuture(loop=self.loop)
        op.body = self
        op.key = op.id = scope.next_id()
        op.kind = kind
        op.args = args
        op.kwargs = kwargs
        op.options = options
        op.attached = None
        op.info = None
        op.version = options.version or 1
        if isinstance(fn, str):
            op.name = fn
            if options.target is None:
                op.info = self.app.find(fn, options.version)
        else:
            op.info = self.app.info(fn)
            op.name = op.info.name
            if options.target is None and op.info.workflow is None and self.app._steps.get(op.name) is not op.info:
                raise UnknownFunction(f"{op.name} is not registered; decorate it with @app.step or @app.workflow")
            if options.version is not None and op.info.workflow is not None:
                op.info = self.app.find(op.name, options.version)
        if op.info is not None:
            op.version = op.info.version
        if options.id is not None:
            op.id = options.id
        elif kind == Kind.DETACHED:
            op.id = detached_id(self.id, op.key)
        self._register(op)
        return op

    def promise(
        self, scope: Scope, name: str | None, timeout: int | None, tags: Mapping[str, str] | None
    ) -> DurableFuture[Any]:
        op: DurableFuture[Any] = DurableFuture(loop=self.loop)
        op.body = self
        position = scope.next_id()
        op.key = position
        op.id = name if name is not None else position
        op.kind = Kind.PROMISE
        op.name = ""
        op.info = None
        op.args = (name,) if name is not None else ()
        op.kwargs = _NO_KWARGS
        op.options = Options(id=name, timeout=timeout, tags=tags)
        op.attached = name
        self._register(op)
        return op

    def timer(self, scope: Scope, at: int) -> DurableFuture[None]:
        op: DurableFuture[None] = DurableFuture(loop=self.loop)
        op.body = self
        op.key = op.id = id = scope.next_id()
        op.kind = Kind.TIMER
        op.name = ""
        op.info = None
        op.at = at
        op.args = ()
        op.kwargs = _NO_KWARGS
        op.options = NO_OPTIONS
        op._record = None
        self._check_timer(id, at)
        self.ops[id] = op
        self.timers[id] = at
        return op

    def arm_timer(self, when: float) -> str:
        """asyncio's own timers (sleep, timeout, wait_for) become durable timers."""
        if not math.isfinite(when) or when >= 2**43:
            raise InvalidArgument(f"a timer at {when!r} seconds: not a finite instant")
        scope = current_scope.get() or self.scope
        id = scope.next_id()
        at = max(math.ceil(when * 1000 - 1e-3), self.now_ms)
        self._check_timer(id, at)
        self.timers[id] = at
        return id

    def disarm_timer(self, key: str) -> None:
        self.timers.pop(key, None)
        self._disarmed.add(key)

    def canceled(self, op: DurableFuture[Any]) -> None:
        """The body has cancelled an operation."""
        if op.kind == Kind.TIMER:
            self.timers.pop(op.key, None)
            return
        if op.kind == Kind.CHILD and op.runner is not None:
            op.runner.cancel()
        if not self.loop.stopped:
            self.cancellations.append(op)

    def check_arguments(self, scope: Scope, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse arguments that the workflow does not take or that cannot be stored."""
        if scope is not self.scope:
            raise InvalidArgument(f"{scope.id} runs inline as a child; continue_as_new is for runs of their own (rpc)")
        encode_call(self.codec, self.info.name, self.info, args, kwargs)

    def isolate(
        self, info: FunctionInfo, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """Arguments as the record holds them, so that a callee cannot change a value of the body."""
        for value in args:
            if type(value) not in _ATOMS:
                break
        else:
            if not kwargs:
                return args, kwargs
        flat = info.signature.plain_args(args, kwargs)
        return info.signature.coerce_args(*self.codec.copy(flat))

    # Inside.

    def _register(self, op: DurableFuture[Any]) -> None:
        record = self._expected(op.key)
        op._record = None if op.kind == Kind.DETACHED else record
        if record is None:
            self._issue(op)
        elif not self._same_work(op, record):
            self._diverge(op.key, describe_recorded(record), describe(op))
        self.ops[op.key] = op

    def _issue(self, op: DurableFuture[Any]) -> None:
        """An operation that history does not deliver: check it against the store, or validate it as new work."""
        if self.loop.abandoned:
            self.loop.alive()
        id = op.key
        if self.next_key is not None and id in self._past:
            self._diverge(id, "a timer", describe(op))
        if id in self._armed:
            self._diverge(id, "a timer", describe(op))
        created = self._created.pop(id, None)
        if created is not None and not self._same_work(op, created):
            self._diverge(id, describe_recorded(created), describe(op))
        op.param = encode_call(self.codec, op.name, op.info, op.args, op.kwargs)
        self.new.append(op)

    def _same_work(self, op: DurableFuture[Any], cells: Cells) -> bool:
        """Compare with `==` first; only what differs is turned into plain JSON (rule P6)."""
        record = Recorded._make(cells)
        if record.kind != op.kind or record.call[0] != op.name:
            return False
        if record.is_call_of(op.kind, op.name, list(op.args), op.kwargs):
            return True
        args, kwargs = plain_call(op.name, op.info, op.args, op.kwargs)
        return record.args == args and record.kwargs == kwargs

    def _check_timer(self, id: str, at: int) -> None:
        self.loop.alive()
        record = self._expected(id) or self._created.pop(id, None)
        if record is not None and record[0] != Kind.TIMER:
            self._diverge(id, describe_recorded(record), "a timer")
        known = self._armed.pop(id, None)
        if known is not None and known != at:
            self._diverge(id, f"a timer until {known}", f"a timer until {at} (milliseconds since 1970)")

    def _diverge(self, id: str, recorded: str, current: str) -> NoReturn:
        error = NondeterminismError(id, recorded, current)
        self.loop.refuse(error)
        raise error

    def _expected(self, id: str) -> Cells | None:
        """What is recorded of an operation that history is yet to deliver."""
        key = self.next_key
        if key is None or key == id:
            return self._next_record
        try:
            return self._past.find(id)
        except DecodeError as error:
            raise self.loop.refuse(error) from None

    def advance(self) -> None:
        """The next entry of history is delivered now."""
        if self.delivered >= self._live_from:
            self.replaying = False
        at = self._next_at
        if at > self.now_ms:
            self.now_ms = at
        self.delivered += 1
        try:
            self.next_key, self._next_at, self._next_record = next(self._ahead)
        except DecodeError as error:
            raise self.loop.refuse(error) from None

    def restore(self, op: DurableFuture[Any], value: Any) -> Any:
        """A recorded value as the annotated type. Raises DecodeError past the body: the data is wrong, not the work."""
        try:
            return value if op.info is None else op.info.restore(value)
        except DecodeError as error:
            raise self.loop.refuse(error) from None

    def _deliver(self, id: str, at: int, completion: tuple[State, Any] | None, record: Cells | None = None) -> None:
        """Complete what stands under an id, and run the body; a replay gives the record instead of the completion."""
        if at > self.now_ms:
            self.now_ms = at
        op = self.ops.pop(id, None)
        if op is not None:
            if op.kind == Kind.TIMER:
                self.timers.pop(id, None)
                if not op.done():
                    op.set_result(None)
            else:
                if completion is None:
                    if record is None:
                        self._diverge(id, "a timer", describe(op))
                    completion = record[2:]
                if not op.done():
                    state, value = completion
                    if state is RESOLVED:
                        info = op.info
                        as_is = op.kind == Kind.DETACHED or (info is not None and type(value) is info.exact)
                        op.set_result(value if as_is else self.restore(op, value))
                    else:
                        op.set_exception(failure(state, value, op.key))
        else:
            handle = self.loop.timer_handles.pop(id, None)
            if handle is not None:
                self.timers.pop(id, None)
                self.loop.ready.append(handle)
            elif id in self.timers:
                self.timers.pop(id)
            elif id not in self._disarmed:  # it came due together with what disarmed it
                self.loop.refused = None
                self._diverge(
                    id,
                    describe_recorded(record) if record is not None else "a timer",
                    "a return from the workflow before it" if self.returned else "no such operation at this point",
                )
        self.loop.drain()
