"""Replay: a workflow body, run on the deterministic loop against settled promises.

The engine performs no I/O and knows no store. Completions reach the body one at a time, and the body runs to
quiescence after each (rule P2); then the engine says what it wants carried out, what it waits for, or how it ended.
What a body may depend on is closed: arguments, recorded values, recorded order.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import current_task, tasks
from collections.abc import Generator, Mapping, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .context import NO_OPTIONS, Context, ContinueAsNew, Options, Scope, current_scope, nested_scope
from .errors import (
    DecodeError,
    InvalidArgument,
    NondeterminismError,
    PromiseCanceled,
    PromiseTimedOut,
    UnknownFunction,
)
from .ids import child_prefix, detached_id
from .loop import Loop
from .plain import plain
from .promise import Kind, Payload, State, Tree

if TYPE_CHECKING:
    from .codec import Codec
    from .registry import App, FunctionInfo, Workflow

T = TypeVar("T")


class Recorded(NamedTuple):
    """What the record holds of one operation. `call` is `[name, args]`, then kwargs and a version where they say
    something; `value` is plain JSON: a result, or a described failure."""

    kind: str
    call: list[Any]
    state: State
    value: Any

    @property
    def name(self) -> str:
        return str(self.call[0])

    @property
    def args(self) -> list[Any]:
        return list(self.call[1])

    @property
    def kwargs(self) -> dict[str, Any]:
        return self.call[2] if len(self.call) > 2 else {}

    def is_call_of(self, kind: str, name: str, args: list[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether this is that call; arguments compare as they are (rule P6)."""
        call = self.call
        return (
            self.kind == kind
            and call[0] == name
            and call[1] == args
            and (not kwargs if len(call) == 2 else call[2] == kwargs)
        )


class Completion(NamedTuple):
    """How an operation or a body ended: its state, and the live value or exception."""

    state: State
    value: Any


_ATOMS = frozenset({str, int, float, bool, type(None)})
_NO_KWARGS: dict[str, Any] = {}


class DurableFuture(asyncio.Future[T]):
    """The value of an operation. `id` is its promise's id, final from the start; `key` is its position in the body,
    which is the same unless the promise has a name of its own."""

    __slots__ = (
        "_record",
        "args",
        "at",
        "attached",
        "body",
        "id",
        "info",
        "key",
        "kind",
        "kwargs",
        "name",
        "options",
        "param",
        "runner",
        "version",
    )

    body: Body
    key: str
    id: str
    kind: str
    name: str
    info: FunctionInfo | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: Options
    param: Payload
    at: int
    attached: str | None
    runner: tasks.Task[Any] | None
    version: int
    _record: Recorded | None

    def __hash__(self) -> int:
        return int(self.key.rpartition(".")[2])  # a str hashes differently in every process (rule P4)

    def __await__(self) -> Generator[Any, None, T]:
        body = self.body
        if body.next_key == self.key:
            # The next recorded delivery is awaited: return at once where nobody can tell the difference (rule P6).
            record = self._record
            loop = body.loop
            if record is not None and not (loop.ready or self._callbacks or self.done() or loop.stopped):
                task = current_task(loop)
                if task is not None and not task.cancelling():
                    body.advance()
                    del body.ops[self.key]
                    if record[2] is State.RESOLVED:
                        value = body.restore(self, record[3])
                        self.set_result(value)
                        return value  # type: ignore[no-any-return]
                    self.set_exception(failure(record[2], record[3], self.key))
                    return self.result()
        return (yield from super().__await__())

    __iter__ = __await__

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        self.body.canceled(self)
        return True


class Body:
    """One workflow body and everything it has asked for.

    Args:
        app: where functions and dependencies are found.
        info: the workflow.
        id: the task's id.
        args, kwargs: coerced arguments.
        generation: which life after `continue_as_new` (rule I5).
        created_at: of the run, in milliseconds.
        recorded: operations that history delivers, by id.
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
        generation: int = 1,
        created_at: int = 0,
        recorded: Mapping[str, Recorded] | None = None,
        created: Mapping[str, Recorded] | None = None,
        armed: Mapping[str, int] | None = None,
    ) -> None:
        assert info.workflow is not None
        self.app = app
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
        self._recorded = recorded if recorded is not None else {}
        self._created = dict(created) if created is not None else {}
        self._armed = dict(armed) if armed is not None else {}
        self._keys: list[str | None] = [None]
        self._instants: list[int] = []
        self._live_from = 0
        self._fired: frozenset[str] = frozenset()
        self._disarmed: set[str] = set()
        self._args = args
        self._kwargs = kwargs
        self._main: tasks.Task[Any] | None = None

    def start(self, history: list[tuple[str, int]], at: int, *, live_from: int | None = None) -> None:
        """Run the body from its beginning through its history.

        Args:
            history: ids in delivery order, each with its instant in milliseconds.
            at: the instant at which the body began.
            live_from: how much of the history earlier invocations delivered; what follows is new, and logged.

        Raises:
            NondeterminismError: the body does something else than the record says.
            RealIOError, Panic: as the body raised them.
        """
        self.began_at = at
        self.now_ms = max(self.now_ms, at)
        total = len(history)
        self._keys = [*(id for id, _ in history), None]
        self._instants = [instant for _, instant in history]
        live_from = total if live_from is None else live_from
        self._fired = frozenset({id for id, _ in history} - self._recorded.keys())
        self._live_from = live_from
        self.next_key = self._keys[0]
        self._main = self.loop.create_task(self._run(self.scope, self.info, self._args, self._kwargs), name="main")
        self.loop.drain()
        while self.delivered < total:
            id, instant = history[self.delivered]
            self.advance()
            self._deliver(id, instant, None)
        self._keys = [None]
        self._instants = []
        self._recorded = {}
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

    def deliver(self, id: str, at: int, completion: Completion) -> None:
        """Hand one completion to the body and run it to quiescence. `completion.value` is plain JSON."""
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
            if not isinstance(error, Exception):
                raise error
            return Completion(State.REJECTED, error)
        value = self._main.result()
        return value if isinstance(value, ContinueAsNew) else Completion(State.RESOLVED, value)

    def blocked_on(self) -> Tree:
        """What the body waits for, as data (rule P5): any of its groups; a group is all only where that is certain."""
        singles: dict[str, None] = dict.fromkeys(self.loop.timer_handles)
        groups: dict[int, tuple[str, list[str]]] = {}
        if self.returned:
            left = self.leftovers()
            groups[0] = ("all", [id for id in left if self.ops[id].kind != Kind.CHILD])
            if len(groups[0][1]) == len(left):
                return ("all", *left)
            if not groups[0][1]:
                del groups[0]  # nothing but inline children, which wait for what their own bodies wait for
        for id, op in self.ops.items():
            if op.done():
                continue
            for callback, _ in op._callbacks or ():
                how, group = _classify(callback)
                if how == "any":
                    singles[id] = None
                elif how != "none":
                    groups.setdefault(group, (how, []))[1].append(id)
        trees: list[Tree] = list(singles)
        for how, members in groups.values():
            trees.append(members[0] if len(members) == 1 else (how, *members))
        trees = list(dict.fromkeys(trees))
        return trees[0] if len(trees) == 1 else ("any", *trees)

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
        op._record = record = self._recorded.get(id)
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
            op.runner = self.loop.create_task(self._run_child(op, child, info, call_args, call_kwargs), name=id)
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
        encode_call(self.app.codec, self.info.name, self.info, args, kwargs)

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
        return info.signature.coerce_args(*self.app.codec.copy(flat))

    # Inside.

    def _register(self, op: DurableFuture[Any]) -> None:
        record = self._recorded.get(op.key)
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
        if id in self._fired:
            self._diverge(id, "a timer", describe(op))
        if id in self._armed:
            self._diverge(id, "a timer", describe(op))
        created = self._created.pop(id, None)
        if created is not None and not self._same_work(op, created):
            self._diverge(id, describe_recorded(created), describe(op))
        op.param = encode_call(self.app.codec, op.name, op.info, op.args, op.kwargs)
        self.new.append(op)

    def _same_work(self, op: DurableFuture[Any], record: Recorded) -> bool:
        """Compare with `==` first; only what differs is turned into plain JSON (rule P6)."""
        if record.kind != op.kind or record.call[0] != op.name:
            return False
        if record.is_call_of(op.kind, op.name, list(op.args), op.kwargs):
            return True
        args, kwargs = plain_call(op.name, op.info, op.args, op.kwargs)
        return record.args == args and record.kwargs == kwargs

    def _check_timer(self, id: str, at: int) -> None:
        self.loop.alive()
        record = self._recorded.get(id) or self._created.pop(id, None)
        if record is not None and record.kind != Kind.TIMER:
            self._diverge(id, describe_recorded(record), "a timer")
        known = self._armed.pop(id, None)
        if known is not None and known != at:
            self._diverge(id, f"a timer until {known}", f"a timer until {at} (milliseconds since 1970)")

    def _diverge(self, id: str, recorded: str, current: str) -> None:
        error = NondeterminismError(id, recorded, current)
        self.loop.refuse(error)
        raise error

    def advance(self) -> None:
        """The next entry of history is delivered now."""
        position = self.delivered
        if position >= self._live_from:
            self.replaying = False
        at = self._instants[position]
        if at > self.now_ms:
            self.now_ms = at
        self.delivered = position = position + 1
        self.next_key = self._keys[position]

    def restore(self, op: DurableFuture[Any], value: Any) -> Any:
        """A recorded value as the annotated type. Raises DecodeError past the body: the data is wrong, not the work."""
        try:
            return value if op.info is None else op.info.restore(value)
        except DecodeError as error:
            raise self.loop.refuse(error) from None

    def _deliver(self, id: str, at: int, completion: Completion | None) -> None:
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
                    record = self._recorded.get(id)
                    if record is None:
                        self._diverge(id, "a timer", describe(op))
                    else:
                        completion = Completion(record.state, record.value)
                if completion is not None and not op.done():
                    state, value = completion
                    if state is State.RESOLVED:
                        op.set_result(value if op.kind == Kind.DETACHED else self.restore(op, value))
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
                record = self._recorded.get(id)
                self.loop.refused = None
                self._diverge(
                    id,
                    describe_recorded(record) if record is not None else "a timer",
                    "a return from the workflow before it" if self.returned else "no such operation at this point",
                )
        self.loop.drain()

    async def _run(self, scope: Scope, info: FunctionInfo, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        current_scope.set(scope)
        ctx = Context(scope)
        while True:
            try:
                return await self._call(info, ctx, args, kwargs)
            except Exception as error:
                delay = info.retry.delay_after(scope.attempt, error)
                if delay is None or isinstance(error, NondeterminismError):
                    raise
            scope.attempt += 1
            await self.timer(scope, self.now_ms + delay)

    async def _call(self, info: FunctionInfo, ctx: Context, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        result = info.fn(ctx, *args, **kwargs)
        if isinstance(result, GeneratorType):  # before coroutines: asyncio of 3.11 takes a generator for one
            return await _drive(result)
        if asyncio.iscoroutine(result):
            return await result
        return result

    async def _run_child(
        self, op: DurableFuture[Any], scope: Scope, info: FunctionInfo, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        try:
            value = await self._run(scope, info, args, kwargs)
        except Exception as error:
            completion = Completion(State.REJECTED, error)
        else:
            if isinstance(value, ContinueAsNew):
                refusal = InvalidArgument(
                    f"{info.name}() runs inline as a child; continue_as_new is for runs of their own (rpc)"
                )
                completion = Completion(State.REJECTED, refusal)
            else:
                completion = Completion(State.RESOLVED, value)
        self.ended_children.append((op, completion))


_FIRED = Completion(State.RESOLVED, None)


def plain_call(
    name: str, info: FunctionInfo | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Arguments in their stored form; what is wrong with them is said naming the parameter."""
    if info is not None:
        return info.signature.plain_args(args, kwargs)
    where = f"of {name}()" if name else "of the promise"
    return [plain(value, f"argument {index + 1} {where}") for index, value in enumerate(args)], {
        key: plain(value, f"argument {key!r} {where}") for key, value in kwargs.items()
    }


def encode_call(
    codec: Codec,
    name: str,
    info: FunctionInfo | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    version: int | None = None,
) -> Payload:
    """A call as it is stored: `[name, args]`, then kwargs and the version where they say something.

    Raises:
        NotSerializable, PayloadTooLarge, TypeError: naming the parameter or the function.
    """
    if info is not None and not kwargs and version is None and info.version == 1 and info.takes_as_is(args):
        return codec.encode_plain([name, list(args)], info.arguments)
    flat, named = plain_call(name, info, args, kwargs)
    chosen = version if version is not None else info.version if info is not None else 1
    call: list[Any] = [name, flat]
    if named or chosen != 1:
        call.append(named)
    if chosen != 1:
        call.append(chosen)
    return codec.encode_plain(call, f"arguments of {name}()")


async def _drive(generator: Generator[Any, Any, Any]) -> Any:
    """Run a generator workflow: `yield` waits for a future, or for all of a list of them."""
    value: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                wanted = generator.throw(error) if error is not None else generator.send(value)
            except StopIteration as stop:
                return stop.value
            value = error = None
            try:
                if isinstance(wanted, (list, tuple)):
                    value = await asyncio.gather(*wanted)
                elif isinstance(wanted, asyncio.Future) or hasattr(wanted, "__await__"):
                    value = await wanted
                else:
                    error = TypeError(
                        f"a workflow yields operations (ctx.run(...), ctx.sleep(...)) or lists of them, not {wanted!r}"
                    )
            except (Exception, asyncio.CancelledError) as raised:
                error = raised
    finally:
        generator.close()


def failure(state: State, value: Any, id: str) -> Exception:
    """The exception a settled promise stands for; `value` is plain JSON."""
    if state is State.TIMEDOUT:
        return PromiseTimedOut(f"{id} reached its deadline")
    if state is State.CANCELED:
        return PromiseCanceled(f"{id} was cancelled")
    from .failures import rebuild

    return rebuild(value)


def describe(op: DurableFuture[Any]) -> str:
    """An operation as an error message shows it."""
    return _describe(op.kind, op.name, list(op.args), op.kwargs)


def describe_recorded(record: Recorded) -> str:
    return _describe(record.kind, record.name, record.args, record.kwargs)


_NAMES = {
    Kind.STEP: "step",
    Kind.CHILD: "child workflow",
    Kind.RPC: "rpc of",
    Kind.DETACHED: "detached",
    Kind.PROMISE: "a promise",
    Kind.TIMER: "a timer",
}


def _describe(kind: str, name: str, args: list[Any], kwargs: Mapping[str, Any]) -> str:
    what = _NAMES.get(kind, kind)
    if kind in (Kind.PROMISE, Kind.TIMER):
        return what + (f" named {args[0]!r}" if args else "")
    shown = [_short(value) for value in args] + [f"{key}={_short(value)}" for key, value in kwargs.items()]
    return f"{what} {name}({', '.join(shown)})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_GATHER = asyncio.gather.__code__
_WAIT = asyncio.tasks._wait.__code__  # type: ignore[attr-defined]


def _classify(callback: Any) -> tuple[str, int]:
    """Who waits on a future, read off its callback: ("all" | "try" | "any" | "none", group).

    What is not recognised counts as any: that costs an idle replay at worst, while a wrong all would hang (rule P5).
    """
    code = getattr(callback, "__code__", None)
    if code is None or (code not in _GATHER.co_consts and code not in _WAIT.co_consts):
        return "any", 0
    cells: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars, callback.__closure__ or (), strict=False):
        try:
            cells[name] = cell.cell_contents
        except ValueError:
            continue
    if code in _GATHER.co_consts:
        outer = cells.get("outer")
        if not isinstance(outer, asyncio.Future) or "return_exceptions" not in cells:
            return "any", 0
        if outer.done():
            return "none", 0
        return ("all" if cells["return_exceptions"] else "try"), id(outer)
    waiter = cells.get("waiter")
    if not isinstance(waiter, asyncio.Future):
        return "any", 0
    if waiter.done():
        return "none", 0
    how = {asyncio.ALL_COMPLETED: "all", asyncio.FIRST_EXCEPTION: "try"}.get(cells.get("return_when", ""), "any")
    return how, id(waiter)
