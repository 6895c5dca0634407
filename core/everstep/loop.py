"""A deterministic asyncio event loop: no selector, no thread, no clock of its own.

The loop runs what is ready until nothing is. Time moves only when the host says so, timers are the host's (they become
durable timers), and every operation that would touch the world is refused. Ordinary asyncio runs on it unchanged.
A drain may be nested inside another running loop; whatever ran outside is hidden meanwhile and put back.
"""

from __future__ import annotations

import asyncio
import collections
import sys
import weakref
from asyncio import events, tasks
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context as ContextVars
from typing import Any, Protocol

from .errors import ControlFlow, RealIOError, UnorderedError


class Host(Protocol):
    """What the loop asks of the engine."""

    now_ms: int

    def arm_timer(self, when: float) -> str:
        """A body wants to be called at `when` (seconds); returns the id of that timer."""
        ...

    def disarm_timer(self, key: str) -> None: ...


class DurableTimer(events.TimerHandle):
    """A timer handle that knows the id of its durable timer."""

    __slots__ = ("key",)
    key: str


class WorkflowTask(tasks.Task[Any]):
    """A task that hashes by creation number, so that a set of tasks has the same order on every replay (rule P4)."""

    number: int

    def __hash__(self) -> int:
        return self.number


class WorkflowFuture(asyncio.Future[Any]):
    """A future of the loop, hashed by creation number as tasks are (rule P4)."""

    __slots__ = ("number",)
    number: int

    def __hash__(self) -> int:
        return self.number


class _Abandoned(ControlFlow):
    """Keeps the cleanup of a body that is let go from asking for more."""


_TASK_OF_THREAD = sys.version_info >= (3, 14)
"""The current task belongs to the thread there, and to the loop before."""

_EAGER = getattr(asyncio, "eager_task_factory", None)
_ENSURE = tuple(
    function.__code__ for name in ("ensure_future", "_ensure_future") if (function := getattr(tasks, name, None))
)
_AS_COMPLETED = tuple(
    code
    for function in (tasks.as_completed, vars(getattr(tasks, "_AsCompletedIterator", tasks)).get("__init__"))
    if (code := getattr(function, "__code__", None)) is not None
)


class Loop(asyncio.AbstractEventLoop):
    """The loop one workflow body runs on."""

    def __init__(self, host: Host) -> None:
        self.ready: collections.deque[events.Handle] = collections.deque()
        self.refused: BaseException | None = None
        self.stopped = False
        self.abandoned = False
        self.timer_handles: dict[str, DurableTimer] = {}
        self.unhandled: list[dict[str, Any]] = []
        self._host = host
        self._created = 0
        self._tasks: weakref.WeakSet[WorkflowTask] = weakref.WeakSet()
        self._factory: Any = None
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        self._hooks = (self._generators.add, self._finalize)

    def next_number(self) -> int:
        self._created += 1
        return self._created

    def refuse(self, error: BaseException) -> BaseException:
        """Keep an error that a body must not swallow; `drain` raises it whatever the body does (rule P4)."""
        if self.refused is None:
            self.refused = error
        self.stopped = True
        return error

    def drain(self) -> None:
        """Run until nothing is ready. Raises what was refused meanwhile."""
        ready = self.ready
        if ready:
            outer = events._get_running_loop()
            outer_task = None
            if _TASK_OF_THREAD and outer is not None:
                outer_task = tasks.current_task(outer)
                if outer_task is not None:
                    tasks._leave_task(outer, outer_task)
            hooks = sys.get_asyncgen_hooks()
            events._set_running_loop(self)
            sys.set_asyncgen_hooks(*self._hooks)
            try:
                while ready and not self.stopped:
                    handle = ready.popleft()
                    if not handle._cancelled:
                        try:
                            handle._run()
                        except SystemExit:
                            pass  # its task has it too, and says so to whoever waits for it
            finally:
                sys.set_asyncgen_hooks(*hooks)
                events._set_running_loop(outer)
                if outer_task is not None and outer is not None:
                    tasks._enter_task(outer, outer_task)
        if self.refused is not None:
            raise self.refused

    def abandon(self) -> None:
        """Drop the body: nothing of it runs again, and nothing of it warns.

        What waits is closed here rather than whenever the collector comes by: a `finally` that asks for more would
        otherwise complain at some later time, or ask the loop that happens to run then.
        """
        self.stopped = self.abandoned = True
        self.ready.clear()
        left = sorted((task for task in self._tasks if not task.done()), key=lambda task: task.number)
        if not left:
            return
        outer = events._get_running_loop()
        events._set_running_loop(None)
        events._set_running_loop(self)
        try:
            for task in left:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
        finally:
            events._set_running_loop(None)
            events._set_running_loop(outer)
        self.ready.clear()

    def alive(self) -> None:
        """Raises control flow once the body was let go."""
        if self.abandoned:
            raise _Abandoned("the body was let go")

    def _finalize(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not self.stopped:
            self.create_task(generator.aclose())

    def time(self) -> float:
        return self._host.now_ms / 1000

    # Always False; asked at every future and handle that is made, so without a call of Python.
    get_debug = staticmethod(bool)  # pyright: ignore[reportAssignmentType]

    def set_debug(self, enabled: bool) -> None:
        pass

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Any, *args: Any, context: ContextVars | None = None) -> events.Handle:  # type: ignore[override]
        handle = events.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: ContextVars | None = None
    ) -> events.TimerHandle:
        self.alive()
        handle = DurableTimer(when, callback, args, self, context)
        handle._scheduled = True  # type: ignore[attr-defined]  # otherwise cancel() does not tell the loop
        handle.key = self._host.arm_timer(when)
        self.timer_handles[handle.key] = handle
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: ContextVars | None = None
    ) -> events.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: DurableTimer) -> None:
        if self.timer_handles.pop(handle.key, None) is not None:
            self._host.disarm_timer(handle.key)

    def create_future(self) -> asyncio.Future[Any]:
        self.alive()
        future = WorkflowFuture(loop=self)
        future.number = self.next_number()
        return future

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: ContextVars | None = None,
        **options: Any,
    ) -> tasks.Task[Any]:
        if self.abandoned:
            coro.close()
            self.alive()
        if sys._getframe(1).f_code in _ENSURE:
            self._refuse_unordered()
        if self._factory is not None:
            if self._factory is not _EAGER:
                task: tasks.Task[Any] = self._factory(self, coro, context=context, **options)
                if name is not None:
                    task.set_name(name)
                return task
            options.setdefault("eager_start", True)
        number = self.next_number()
        # The default name is a counter of the whole process, which a replay would not repeat.
        created = WorkflowTask.__new__(WorkflowTask)
        created.number = number
        created.__init__(coro, loop=self, name=name or f"task-{number}", context=context, **options)  # type: ignore[misc]
        self._tasks.add(created)
        return created

    def _refuse_unordered(self) -> None:
        """asyncio.as_completed puts its coroutines into a set before it makes tasks of them (rule P4)."""
        frame = sys._getframe(2)
        for _ in range(3):  # the function itself, or a comprehension in it, and ensure_future may be two
            if frame.f_back is None:
                return
            frame = frame.f_back
            if frame.f_code in _AS_COMPLETED:
                raise self.refuse(
                    UnorderedError(
                        "asyncio.as_completed() over bare coroutines starts them in an order that no replay repeats; "
                        "make tasks of them first: asyncio.create_task(...)"
                    )
                )

    def set_task_factory(self, factory: Any) -> None:
        self._factory = factory

    def get_task_factory(self) -> Any:
        return self._factory

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.unhandled.append(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.unhandled.append(context)

    def get_exception_handler(self) -> None:
        return None

    async def shutdown_asyncgens(self) -> None:
        for generator in list(self._generators):
            await generator.aclose()


def _close(coroutine: Any) -> None:
    for _ in range(8):  # a cleanup may wait several times
        try:
            coroutine.close()
            return
        except BaseException:
            continue


_REFUSED = [
    "create_connection",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "create_datagram_endpoint",
    "connect_accepted_socket",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendto",
    "sock_connect",
    "sock_accept",
    "sock_sendfile",
    "sendfile",
    "start_tls",
    "connect_read_pipe",
    "connect_write_pipe",
    "subprocess_shell",
    "subprocess_exec",
    "getaddrinfo",
    "getnameinfo",
    "add_reader",
    "remove_reader",
    "add_writer",
    "remove_writer",
    "add_signal_handler",
    "remove_signal_handler",
    "run_in_executor",
    "set_default_executor",
    "call_soon_threadsafe",
    "run_forever",
    "run_until_complete",
    "stop",
    "close",
    "shutdown_default_executor",
]


def _refusing(name: str) -> Callable[..., Any]:
    def method(self: Loop, *args: Any, **options: Any) -> Any:
        raise self.refuse(
            RealIOError(f"{name}() inside a workflow body: real I/O belongs in a step; wrap it in ctx.run(...)")
        )

    method.__name__ = name
    return method


for _name in _REFUSED:
    setattr(Loop, _name, _refusing(_name))
