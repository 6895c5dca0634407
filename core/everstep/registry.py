"""What an application is made of: workflows, steps, defaults, dependencies. An App does no I/O and starts nothing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Generator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

from .errors import DuplicateRegistration, InvalidArgument, UnknownFunction
from .retry import NEVER_RETRY, Retry

if TYPE_CHECKING:
    from .codec import Codec
    from .coerce import Signature
    from .context import Context
    from .events import Event, Trigger

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
W = TypeVar("W", bound="Workflow[..., Any]")
D = TypeVar("D")

Seconds = float | int | timedelta


def milliseconds(value: Seconds, what: str) -> int:
    """A duration in seconds or as a timedelta, as milliseconds rounded up. Raises InvalidArgument, naming `what`."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise InvalidArgument(f"{what} must be seconds or a timedelta, not {type(value).__name__}")
    if not 0 <= seconds < 2**43:
        raise InvalidArgument(f"{what} must be a number of seconds from 0 on, not {value!r}")
    whole = round(seconds * 1000)
    return whole if whole >= seconds * 1000 - 1e-6 else whole + 1


class Workflow(Generic[P, T]):
    """A registered workflow: what `@app.workflow` returns. Calling it with a Context calls the function underneath."""

    def __init__(
        self,
        app: App,
        fn: Callable[..., Any],
        *,
        name: str,
        version: int,
        timeout: int | None,
        retry: Retry,
        retention: int | None,
    ) -> None:
        functools.update_wrapper(self, fn)
        self.app = app
        self.fn = fn
        self.name = name
        self.version = version
        self.timeout = timeout
        self.retry = retry
        self.retention = retention

    def __call__(
        self, ctx: Context, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T] | Generator[Any, Any, T]:
        if type(ctx).__module__ == "builtins":
            raise TypeError(f"{self.name} is a workflow and begins with a Context: client.start({self.name}, ...)")
        result: Any = self.fn(ctx, *args, **kwargs)
        return result  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<workflow {self.name} version {self.version}>"


class WorkflowDecorator(Protocol):
    @overload
    def __call__(self, fn: Callable[Concatenate[Context, P], Coroutine[Any, Any, T]], /) -> Workflow[P, T]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Context, P], Generator[Any, Any, T]], /) -> Workflow[P, T]: ...


class FunctionInfo:
    """What the engine knows of a function: its name, its signature (resolved on first use), its retry policy.
    `arguments` and `result` are what errors call them; results of the type `exact`, once it is known, are stored and
    come back as they are."""

    __slots__ = (
        "_result",
        "_signature",
        "_simple",
        "arguments",
        "exact",
        "fn",
        "is_async",
        "name",
        "result",
        "retry",
        "version",
        "workflow",
    )

    def __init__(
        self, fn: Callable[..., Any], name: str, retry: Retry, workflow: Workflow[..., Any] | None = None
    ) -> None:
        self.fn = fn
        self.name = name
        self.arguments = f"arguments of {name}()"
        self.result = f"result of {name}()"
        self.retry = retry
        self.workflow = workflow
        self.version = workflow.version if workflow is not None else 1
        call = fn if not isinstance(fn, functools.partial) else fn.func
        self.is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)
        self._signature: Signature | None = None
        self._result: Any = _UNRESOLVED
        self.exact: type | None = None
        self._simple: Any = _UNRESOLVED

    @property
    def signature(self) -> Signature:
        if self._signature is None:
            from .coerce import signature_of

            self._signature = signature_of(self.fn, skip_first=self.workflow is not None)
        return self._signature

    def takes_as_is(self, args: Sequence[Any]) -> bool:
        """Whether these positional arguments are stored, and come back, as they are: one comparison of types."""
        if self._simple is _UNRESOLVED:
            self._simple = self._simple_types()
        return self._simple is not None and tuple(map(type, args)) == self._simple

    def _simple_types(self) -> tuple[type, ...] | None:
        """The annotations, where all are of plain types and all parameters are given by position."""
        signature = self.signature
        wanted = tuple([signature.hints.get(name) for name in signature.names])
        plain = len(wanted) == len(signature.parameters) and all(kind in (str, int, bool) for kind in wanted)
        return wanted if plain else None  # type: ignore[return-value]

    def restore(self, value: Any) -> Any:
        """A stored result as the annotated type. Raises DecodeError where it does not fit."""
        if self.returns_as_is(value):
            return value
        return value if self._result is None else self._result(value)

    def returns_as_is(self, value: Any) -> bool:
        """Whether a result is stored, and comes back, exactly as it is."""
        if self._result is _UNRESOLVED:
            self._result = self.signature.result_coercer()
            wanted = self.signature.hints.get("return")
            self.exact = wanted if wanted in (str, int, bool, type(None)) else None
        return type(value) is self.exact


_UNRESOLVED: Any = object()


class App:
    """A registry with defaults.

    Args:
        name: addresses the application's tasks (`everstep://<name>`) where several share a store.
        retry: the policy of steps that name none.
        retention: how long settled runs are kept, in seconds or as a timedelta; None for ever.
        codec: how values become text (encryption, payloads by reference); the store's own ways by default.
        max_deaths: after how many invocations in a row that died without progress a run is halted.
    """

    def __init__(
        self,
        name: str = "app",
        *,
        retry: Retry | None = None,
        retention: Seconds | None = None,
        codec: Codec | None = None,
        max_deaths: int = 5,
    ) -> None:
        if not name or any(char in name for char in "/?#@ "):
            raise InvalidArgument(f"App name {name!r}: letters, digits, - and _ only")
        self.name = name
        self.target = f"everstep://{name}"
        self.retry = retry if retry is not None else Retry()
        self.retention = None if retention is None else milliseconds(retention, "retention")
        self.max_deaths = max_deaths
        self._given = self._codec = codec
        self._workflows: dict[str, dict[int, Workflow[..., Any]]] = {}
        self._steps: dict[str, FunctionInfo] = {}
        self._infos: dict[Any, FunctionInfo] = {}
        self._wrapped: dict[str, FunctionInfo] = {}
        self._dependencies: list[Any] = []
        self.triggers: list[Trigger] = []

    @property
    def codec(self) -> Codec:
        if self._codec is None:
            from .codec import Codec

            self._codec = Codec()
        return self._codec

    @property
    def own_codec(self) -> Codec | None:
        """The codec the App was given, or None: then each store it is opened on suggests one."""
        return self._given

    @overload
    def workflow(self, fn: Callable[Concatenate[Context, P], Coroutine[Any, Any, T]], /) -> Workflow[P, T]: ...
    @overload
    def workflow(self, fn: Callable[Concatenate[Context, P], Generator[Any, Any, T]], /) -> Workflow[P, T]: ...
    @overload
    def workflow(
        self,
        /,
        *,
        name: str | None = None,
        version: int = 1,
        timeout: Seconds | None = None,
        retry: Retry | None = None,
        retention: Seconds | None = None,
    ) -> WorkflowDecorator: ...
    def workflow(
        self,
        fn: Any = None,
        /,
        *,
        name: str | None = None,
        version: int = 1,
        timeout: Seconds | None = None,
        retry: Retry | None = None,
        retention: Seconds | None = None,
    ) -> Any:
        """Register a workflow: an async or a generator function whose first parameter is the Context.

        Args:
            name: what records call it; the function's name by default.
            version: runs go on with the version they began with; new runs take the highest.
            timeout: the deadline of a run; none by default.
            retry: whether a failed run starts over; it does not by default.
            retention: how long its settled runs are kept; the App's by default.

        Raises:
            DuplicateRegistration: name and version are taken.
            InvalidArgument: an option is outside its range, or `fn` is no function.
        """

        def register(fn: Any) -> Workflow[..., Any]:
            if not callable(fn):
                raise InvalidArgument(f"@app.workflow decorates a function, not {type(fn).__name__}")
            known = name if name is not None else _name_of(fn)
            if inspect.isasyncgenfunction(fn):
                raise InvalidArgument(f"workflow {known}: `async def` awaits operations, `def` yields them; not both")
            if not isinstance(version, int) or version < 1:
                raise InvalidArgument(f"workflow {known}: version={version!r} must be a whole number from 1 on")
            versions = self._workflows.setdefault(known, {})
            if version in versions:
                raise DuplicateRegistration(
                    f"workflow {known!r} version {version} is registered twice: "
                    f"{_where(versions[version].fn)} and {_where(fn)}"
                )
            if known in self._steps:
                raise DuplicateRegistration(
                    f"{known!r} is registered as a step already: {_where(self._steps[known].fn)}"
                )
            created: Workflow[..., Any] = Workflow(
                self,
                fn,
                name=known,
                version=version,
                timeout=None if timeout is None else milliseconds(timeout, "timeout"),
                retry=retry if retry is not None else NEVER_RETRY,
                retention=self.retention if retention is None else milliseconds(retention, "retention"),
            )
            versions[version] = created
            self._infos[created] = FunctionInfo(fn, known, created.retry, created)
            return created

        return register if fn is None else register(fn)

    @overload
    def step(self, fn: F, /) -> F: ...
    @overload
    def step(self, /, *, name: str | None = None, retry: Retry | None = None) -> Callable[[F], F]: ...
    def step(self, fn: Any = None, /, *, name: str | None = None, retry: Retry | None = None) -> Any:
        """Register a step: a plain sync or async function, returned as it is.

        Args:
            name: what records call it; the function's name by default.
            retry: its policy; the App's by default.

        Raises:
            DuplicateRegistration: the name is taken.
        """

        def register(fn: Any) -> Any:
            if not callable(fn):
                raise InvalidArgument(f"@app.step decorates a function, not {type(fn).__name__}")
            known = name if name is not None else _name_of(fn)
            taken = self._steps.get(known)
            if taken is not None or known in self._workflows:
                other = taken.fn if taken is not None else next(iter(self._workflows[known].values())).fn
                raise DuplicateRegistration(f"step {known!r} is registered twice: {_where(other)} and {_where(fn)}")
            info = FunctionInfo(fn, known, retry if retry is not None else self.retry)
            self._steps[known] = info
            self._infos[fn] = info
            return fn

        return register if fn is None else register(fn)

    def on(
        self,
        kind: str,
        *,
        source: str = "*",
        type: str | None = None,
        id: Callable[[Event], str] | None = None,
        args: Callable[[Event], Sequence[Any]] | None = None,
        when: Callable[[Event], bool] | None = None,
    ) -> Callable[[W], W]:
        """Start a workflow for every event of a queue, a stream, a bucket, a table; stands above `@app.workflow`.

        Args:
            kind: of the event: "sqs", "kafka", "pubsub", "postgres", ...; the adapter's page lists its own.
            source: the queue, topic, bucket or table, a pattern with `*`; any by default.
            type: what happened, as the platform calls it ("INSERT", "ObjectCreated:Put"), a pattern; any by default.
            id: the run's id; by default it is made of the workflow's name and the event's identity, so that an event
                delivered again starts nothing.
            args: the workflow's arguments; the event's data, as the only one, by default.
            when: whether this event is wanted.

        Raises:
            InvalidArgument: it decorates something else than a workflow, or the kind is empty.
        """
        from .events import Trigger

        def register(workflow: W) -> W:
            if not isinstance(workflow, Workflow):
                raise InvalidArgument("@app.on(...) stands above @app.workflow, not below it")
            self.triggers.append(Trigger(workflow, kind, source, type, id, args, when))
            return workflow

        if not isinstance(kind, str) or not kind:
            raise InvalidArgument(f"app.on takes a kind of event, not {kind!r}")
        return register

    def provide(self, value: D) -> D:
        """Make a value (a client, configuration) available to `ctx.dependency(Type)` and to steps."""
        self._dependencies.append(value)
        return value

    def dependency(self, type_: type[D]) -> D:
        """The value provided last that is an instance of `type_`. Raises LookupError, naming the type."""
        for value in reversed(self._dependencies):
            if isinstance(value, type_):
                return value
        raise LookupError(f"nothing of type {type_.__name__} was provided; call app.provide(...)")

    def info(self, fn: Any) -> FunctionInfo:
        """What is known of a workflow or a step; a function that was never registered is a step under its own name."""
        info = self._infos.get(fn)
        if info is None:
            if isinstance(fn, Workflow):
                return self._infos.setdefault(fn, FunctionInfo(fn.fn, fn.name, fn.retry, fn))
            if not callable(fn):
                hint = f": ctx.run({fn.__name__}, ...)" if inspect.iscoroutine(fn) else ""
                raise InvalidArgument(f"ctx.run takes a function, not {type(fn).__name__}{hint}")
            info = FunctionInfo(fn, _name_of(fn), self.retry)
            if "<" not in getattr(fn, "__qualname__", "<"):  # one of a function's locals is another one at every call
                self._infos[fn] = info
        return info

    def find(self, name: str, version: int | None = None) -> FunctionInfo:
        """A workflow by name (its highest version unless one is given), or a step. Raises UnknownFunction."""
        versions = self._workflows.get(name)
        if versions is not None:
            chosen = max(versions) if version is None else version
            if chosen not in versions:
                raise UnknownFunction(
                    f"workflow {name!r} has no version {chosen} in app {self.name!r}; registered: {sorted(versions)}"
                )
            return self._infos[versions[chosen]]
        if name in self._steps:
            return self._steps[name]
        known = ", ".join(sorted([*self._workflows, *self._steps])) or "nothing"
        raise UnknownFunction(f"no workflow named {name!r} in app {self.name!r}; registered: {known}")

    def is_workflow(self, name: str) -> bool:
        return name in self._workflows

    def as_workflow(self, info: FunctionInfo) -> FunctionInfo:
        """A step as a workflow of that one step, for a durable invocation of its own."""
        if info.workflow is not None:
            return info
        wrapped = self._wrapped.get(info.name)
        if wrapped is None:
            fn = info.fn

            async def body(ctx: Context, *args: Any, **kwargs: Any) -> Any:
                return await ctx.run(fn, *args, **kwargs)

            workflow: Workflow[..., Any] = Workflow(
                self, body, name=info.name, version=1, timeout=None, retry=NEVER_RETRY, retention=self.retention
            )
            wrapped = self._wrapped[info.name] = FunctionInfo(body, info.name, NEVER_RETRY, workflow)
        return wrapped

    @property
    def every_workflow(self) -> list[Workflow[..., Any]]:
        """Every registered workflow, in all its versions."""
        return [workflow for versions in self._workflows.values() for workflow in versions.values()]

    @property
    def workflows(self) -> list[Workflow[..., Any]]:
        """Every registered workflow, newest version of each name."""
        return [versions[max(versions)] for versions in self._workflows.values()]


OnConflict = Literal["raise", "attach"]


def _name_of(fn: Any) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__name__", None)
    return name if isinstance(name, str) else type(fn).__name__


def _where(fn: Any) -> str:
    code = getattr(fn, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(fn)
