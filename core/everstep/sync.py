"""The client for code without an event loop. It owns a private loop, on which each call runs to its end."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from .client import Client, Handle
from .errors import UsageError
from .registry import App, OnConflict, Seconds, Workflow
from .views import CostReport, PromiseView, SweepReport, TreeView, VerifyReport

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .clock import Clock
    from .codec import Codec

P = ParamSpec("P")
T = TypeVar("T")


class SyncHandle(Generic[T]):
    """A run, by its id; see `Handle`."""

    def __init__(self, client: SyncClient, handle: Handle[T]) -> None:
        self._client = client
        self._handle = handle

    @property
    def id(self) -> str:
        return self._handle.id

    def result(self, timeout: float | None = None) -> T:
        return self._client._wait(self._handle.result(timeout))

    def status(self) -> str:
        return self._client._wait(self._handle.status())

    def view(self) -> PromiseView:
        return self._client._wait(self._handle.view())


class SyncStarter:
    """A client with options for the next start; see `Starter`."""

    def __init__(self, client: SyncClient, options: dict[str, Any]) -> None:
        self._client = client
        self._options = options

    @overload
    def start(self, workflow: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs) -> SyncHandle[T]: ...
    @overload
    def start(self, workflow: str, /, *args: Any, **kwargs: Any) -> SyncHandle[Any]: ...
    def start(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Any:
        client = self._client
        return SyncHandle(client, client._wait(client._client._start(workflow, args, kwargs, **self._options)))


class SyncClient:
    """`Client`, method by method, for synchronous code; see there for arguments and errors.

    Raises UsageError when called where an event loop runs: use `Client` there.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._runner = asyncio.Runner()

    @classmethod
    def open(
        cls, url: str, *, app: App | None = None, codec: Codec | None = None, clock: Clock | None = None
    ) -> SyncClient:
        return cls(Client.open(url, app=app, codec=codec, clock=clock))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._runner.run(work)
        work.close()
        raise UsageError("SyncClient was called where an event loop runs; await everstep.Client there")

    def close(self) -> None:
        self._wait(self._client.close())
        self._runner.close()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def options(
        self,
        *,
        id: str | None = None,
        timeout: Seconds | None = None,
        tags: Mapping[str, str] | None = None,
        on_conflict: OnConflict = "raise",
        target: str | None = None,
    ) -> SyncStarter:
        options = {"id": id, "timeout": timeout, "tags": tags, "on_conflict": on_conflict, "target": target}
        return SyncStarter(self, options)

    @overload
    def start(self, workflow: str, /, *args: Any, id: str | None = None, **kwargs: Any) -> SyncHandle[Any]: ...
    @overload
    def start(
        self, workflow: Workflow[..., T], /, *args: Any, id: str | None = None, **kwargs: Any
    ) -> SyncHandle[T]: ...
    def start(
        self,
        workflow: Any,
        /,
        *args: Any,
        id: str | None = None,
        on_conflict: OnConflict = "raise",
        timeout: Seconds | None = None,
        tags: Mapping[str, str] | None = None,
        target: str | None = None,
        **kwargs: Any,
    ) -> Any:
        options = self.options(id=id, on_conflict=on_conflict, timeout=timeout, tags=tags, target=target)
        return options.start(workflow, *args, **kwargs)

    def handle(self, id: str) -> SyncHandle[Any]:
        return SyncHandle(self, self._client.handle(id))

    def resolve(self, id: str, value: Any = None) -> PromiseView:
        return self._wait(self._client.resolve(id, value))

    def reject(self, id: str, error: str | BaseException | Mapping[str, Any]) -> PromiseView:
        return self._wait(self._client.reject(id, error))

    def cancel(self, id: str) -> PromiseView:
        return self._wait(self._client.cancel(id))

    def get(self, id: str) -> PromiseView:
        return self._wait(self._client.get(id))

    def wait(self, id: str, timeout: float | None = None) -> PromiseView:
        return self._wait(self._client.wait(id, timeout))

    def tree(self, id: str) -> TreeView:
        return self._wait(self._client.tree(id))

    def search(
        self,
        *,
        state: str | None = None,
        tags: Mapping[str, str] | None = None,
        prefix: str = "",
        roots: bool = True,
        limit: int = 100,
        cursor: str | None = None,
    ) -> tuple[list[PromiseView], str | None]:
        return self._wait(
            self._client.search(state=state, tags=tags, prefix=prefix, roots=roots, limit=limit, cursor=cursor)
        )

    @functools.wraps(Client.schedule)
    def schedule(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self._wait(self._client.schedule(*args, **kwargs))

    def unschedule(self, id: str) -> None:
        self._wait(self._client.unschedule(id))

    def schedules(self) -> list[dict[str, Any]]:
        return self._wait(self._client.schedules())

    def halt(self, id: str, reason: str = "") -> PromiseView:
        return self._wait(self._client.halt(id, reason))

    def continue_(self, id: str) -> PromiseView:
        return self._wait(self._client.continue_(id))

    def verify(self, repair: bool = False) -> VerifyReport:
        return self._wait(self._client.verify(repair))

    def sweep(self) -> SweepReport:
        return self._wait(self._client.sweep())

    def cost(self, id: str) -> CostReport:
        return self._wait(self._client.cost(id))


def missing() -> list[str]:
    """Public methods of `Client` that `SyncClient` does not mirror; a test holds this empty."""
    return [
        name
        for name, member in inspect.getmembers(Client, inspect.isfunction)
        if not name.startswith("_") and name not in ("record", "settled_record") and not hasattr(SyncClient, name)
    ]
