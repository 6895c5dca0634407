"""What workflow code sees.

Operations start when called and return a future; `await` (or `yield`) gives the value. Ids follow the order of calls
within a context and never timing (rule I1).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, overload

from .clock import to_datetime, to_milliseconds
from .errors import InvalidArgument, Panic
from .ids import check_root, child_prefix
from .promise import Kind
from .registry import Seconds, Workflow, milliseconds
from .retry import Retry

if TYPE_CHECKING:
    from uuid import UUID

    from .engine import Body
    from .operation import DurableFuture

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")


class Options(NamedTuple):
    """What `ctx.options(...)` sets for the next operation."""

    id: str | None = None
    target: str | None = None
    timeout: int | None = None
    retry: Retry | None = None
    tags: Mapping[str, str] | None = None
    version: int | None = None


NO_OPTIONS = Options()


class Info(NamedTuple):
    """Where a body is: its workflow, when the run was created, and which life it leads."""

    workflow: str
    version: int
    created_at: datetime
    generation: int
    attempt: int


class ContinueAsNew(NamedTuple):
    """What `return ctx.continue_as_new(...)` returns: start over under the same id, with these arguments."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Scope:
    """The part of a body that counts: one per workflow, and one per workflow that runs inline as a child."""

    __slots__ = ("attempt", "body", "count", "derived", "id", "prefix")

    def __init__(self, body: Body, id: str, prefix: str) -> None:
        self.body = body
        self.id = id
        self.prefix = prefix
        self.count = 0
        self.derived = 0
        self.attempt = 1

    def next_id(self) -> str:
        self.count = count = self.count + 1
        return f"{self.prefix}{count}"


current_scope: ContextVar[Scope | None] = ContextVar("everstep_scope", default=None)


class Context:
    """A workflow's hands. Every operation is durable and recorded under an id of its own."""

    __slots__ = ("_body", "_options", "_scope")

    def __init__(self, scope: Scope, options: Options = NO_OPTIONS) -> None:
        self._scope = scope
        self._body = scope.body
        self._options = options

    @overload
    def run(self, fn: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs) -> DurableFuture[T]: ...
    @overload
    def run(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> DurableFuture[T]: ...
    @overload
    def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> DurableFuture[T]: ...
    def run(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a step in this invocation and record its result; a workflow runs inline as a child.

        A step runs at least once and is recorded exactly once. Its arguments reach it as the record holds them, so a
        step cannot change a value of the body.

        Raises (at the call):
            NotSerializable: an argument cannot be stored; the message names the parameter.
            PayloadTooLarge: the arguments exceed the store's limit.
            TypeError: the arguments do not fit the function.
        """
        return self._body.run(self._scope, fn, args, kwargs, self._options)

    @overload
    def rpc(self, fn: str, /, *args: Any, **kwargs: Any) -> DurableFuture[Any]: ...
    @overload
    def rpc(self, fn: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs) -> DurableFuture[T]: ...
    @overload
    def rpc(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> DurableFuture[T]: ...
    @overload
    def rpc(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> DurableFuture[T]: ...
    def rpc(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A durable invocation of its own, of a workflow, a step or a name, here or at `options(target=...)`.

        Raises (at the call): as `run`.
        """
        return self._body.invoke(self._scope, Kind.RPC, fn, args, kwargs, self._options)

    def detached(self, fn: Workflow[P, Any] | str, /, *args: Any, **kwargs: Any) -> DurableFuture[str]:
        """Start a new root and do not wait for it; the future's value is the new root's id.

        Its deadline and history are its own; ids keep a constant length down an endless chain (rule I3).
        """
        return self._body.invoke(self._scope, Kind.DETACHED, fn, args, kwargs, self._options)

    def continue_as_new(self, *args: Any, **kwargs: Any) -> T:  # type: ignore[type-var]
        """`return ctx.continue_as_new(state)`: the same id starts over with these arguments and a fresh history.

        To a type checker it is whatever the workflow returns.
        """
        self._body.check_arguments(self._scope, args, kwargs)
        return ContinueAsNew(args, kwargs)  # type: ignore[return-value]

    def sleep(self, duration: Seconds) -> DurableFuture[None]:
        """A durable timer. Raises InvalidArgument for a negative, infinite or NaN duration."""
        return self._body.timer(self._scope, self._body.now_ms + milliseconds(duration, "sleep"))

    def sleep_until(self, moment: datetime) -> DurableFuture[None]:
        """A durable timer that fires at an aware datetime, at once if that has passed."""
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise InvalidArgument(f"sleep_until takes an aware datetime (with a time zone), not {moment!r}")
        return self._body.timer(self._scope, max(to_milliseconds(moment), self._body.now_ms))

    def promise(
        self, id: str | None = None, timeout: Seconds | None = None, tags: Mapping[str, str] | None = None
    ) -> DurableFuture[Any]:
        """A latent promise, settled from outside by its id, which is final before anything is awaited.

        To cancel it settles it as cancelled, unless it has a name of its own: others may wait for it under that name.

        Args:
            id: a name of its own, which other workflows may use too; by default one is derived from where the workflow
                is. One that nobody may ever settle wants a timeout: it does not end with this workflow.
            timeout: seconds or timedelta until it is rejected with PromiseTimedOut; never by default.
            tags: for `search`.
        """
        options = self._options
        chosen = id if id is not None else options.id
        limit = options.timeout if timeout is None else milliseconds(timeout, "promise(timeout=)")
        return self._body.promise(
            self._scope,
            check_root(chosen, "promise(id=)") if chosen is not None else None,
            limit,
            check_tags(tags) if tags is not None else options.tags,
        )

    def options(
        self,
        *,
        id: str | None = None,
        target: str | None = None,
        timeout: Seconds | None = None,
        retry: Retry | None = None,
        tags: Mapping[str, str] | None = None,
        version: int | None = None,
    ) -> Context:
        """A view of the context for the next operation.

        Args:
            id: names the promise (no dot), so that equal work is shared across roots.
            target: who carries out an `rpc`.
            timeout: seconds or timedelta until the operation is rejected with PromiseTimedOut.
            retry: a policy for this one call.
            tags: for `search`.
            version: of the workflow to start.

        Raises:
            InvalidArgument, InvalidId: an option is outside its range.
        """
        if retry is not None and not isinstance(retry, Retry):
            raise InvalidArgument(f"options(retry=) takes a Retry, not {type(retry).__name__}")
        return Context(
            self._scope,
            Options(
                check_root(id, "options(id=)") if id is not None else None,
                target,
                None if timeout is None else milliseconds(timeout, "options(timeout=)"),
                retry,
                check_tags(tags) if tags is not None else None,
                version,
            ),
        )

    def now(self) -> datetime:
        """The recorded time (UTC) of the delivery that made the body run last: the same on every replay."""
        return to_datetime(self._body.now_ms)

    def random(self) -> float:
        """A number in [0, 1) derived from the run and the order of calls: the same on every replay."""
        return int.from_bytes(self._derive()[:7], "big") / (1 << 56)

    def uuid(self) -> UUID:
        """A UUID derived from the run and the order of calls: the same on every replay."""
        from uuid import UUID

        return UUID(bytes=self._derive()[:16], version=4)

    def _derive(self) -> bytes:
        scope = self._scope
        scope.derived += 1
        return hashlib.sha256(f"{scope.prefix}#{scope.derived}#{self._body.created_at}".encode()).digest()

    def dependency(self, type_: type[D]) -> D:
        """What `app.provide(value)` put there. Raises LookupError, naming the type."""
        return self._body.app.dependency(type_)

    def panic(self, reason: str) -> None:
        """An impossible state: abort without settling; the run is halted with this reason for a person to look at."""
        raise self._body.loop.refuse(Panic(reason))

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that is silent while the body replays."""
        return _ReplayLogger(logging.getLogger("everstep.workflow"), self)

    @property
    def id(self) -> str:
        """The id of the run, or of the child that runs inline."""
        return self._scope.id

    @property
    def attempt(self) -> int:
        """Which attempt of the workflow this is, from 1."""
        return self._scope.attempt

    @property
    def info(self) -> Info:
        body = self._body
        return Info(
            body.workflow.name,
            body.workflow.version,
            to_datetime(body.created_at),
            body.generation,
            self._scope.attempt,
        )


class _ReplayLogger(logging.LoggerAdapter[logging.Logger]):
    def __init__(self, logger: logging.Logger, ctx: Context) -> None:
        super().__init__(logger, {"everstep_id": ctx.id})
        self._context = ctx

    def isEnabledFor(self, level: int) -> bool:
        return not self._context._body.replaying and self.logger.isEnabledFor(level)

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        kwargs["extra"] = {**(kwargs.get("extra") or {}), "everstep_id": self._context.id}
        return f"[{self._context.id}] {msg}", kwargs


def check_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    """Tags as a plain dict of strings. Raises InvalidArgument for anything else and for reserved names."""
    for key, value in tags.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidArgument(f"tags must be strings: {key!r}: {value!r}")
        if key.startswith(("resonate:", "everstep:")):
            raise InvalidArgument(f"tag {key!r}: names that begin with resonate: or everstep: are reserved")
    return dict(tags)


def nested_scope(body: Body, id: str, generation: int = 1) -> Scope:
    return Scope(body, id, child_prefix(id, generation))
