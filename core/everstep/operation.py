"""An operation of a body: what it is, what the record holds of it, and the future that stands for its value."""

from __future__ import annotations

import asyncio
from asyncio import current_task, tasks
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .errors import PromiseCanceled, PromiseTimedOut
from .plain import plain
from .promise import RESOLVED, Kind, Payload, State

if TYPE_CHECKING:
    from .codec import Codec
    from .context import Options
    from .engine import Body
    from .registry import FunctionInfo

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


_NOTHING: list[Any] = ["", []]


Cells = tuple[str, list[Any], State, Any]
"""What a `Recorded` is made of: what a replay meets by the thousand, and reads by its place."""


def in_cells(kinds: Iterable[str], calls: Sequence[Any], states: Iterable[State], values: Iterable[Any]) -> list[Cells]:
    """Columns as what is recorded of each, built without a call of Python; a call that is missing is one of nothing.

    Raises ValueError where the columns differ in length.
    """
    if None in calls:
        calls = [call or _NOTHING for call in calls]
    return list(zip(kinds, calls, states, values, strict=True))


class Completion(NamedTuple):
    """How an operation or a body ended: its state, and the live value or exception."""

    state: State
    value: Any


_await = asyncio.Future.__await__


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
    _record: Cells | None

    def __hash__(self) -> int:
        return int(self.key.rpartition(".")[2])  # a str hashes differently in every process (rule P4)

    def __bool__(self) -> bool:
        raise TypeError(f"{self.key}: a future is neither true nor false; await it")

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
                    _, _, state, value = record
                    if state is RESOLVED:
                        info = self.info
                        if info is None or type(value) is not info.exact:
                            value = body.restore(self, value)
                        self.set_result(value)
                    else:
                        self.set_exception(failure(state, value, self.key))
        return _await(self)

    __iter__ = __await__

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        self.body.canceled(self)
        return True


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


class Call(NamedTuple):
    """A call as it was stored."""

    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    version: int = 1


def decode_call(stored: Any) -> Call | None:
    """A decoded call: of ours (`encode_call`), or of an official SDK (`func`, `args`); None for anything else."""
    match stored:
        case [str() as name, list() as args]:
            return Call(name, args, {})
        case [str() as name, list() as args, dict() as kwargs]:
            return Call(name, args, kwargs)
        case [str() as name, list() as args, dict() as kwargs, int() as version]:
            return Call(name, args, kwargs, version)
        case {"func": str() as name}:
            args, kwargs, version = stored.get("args"), stored.get("kwargs"), stored.get("version")
            return Call(
                name,
                args if isinstance(args, list) else [],
                kwargs if isinstance(kwargs, dict) else {},
                version if isinstance(version, int) and version > 0 else 1,
            )
    return None


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


def describe_recorded(cells: Cells) -> str:
    record = Recorded._make(cells)
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
