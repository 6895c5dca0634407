"""The embedded runtime behind a synchronous face, on a thread of its own: for WSGI frameworks, scripts and notebooks.

Handlers of many threads share one loop: each call is handed to it and waited for. Make one in each process, after a
server has forked its workers; the processes may share a store.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .errors import UsageError
from .local import Runtime
from .registry import App, Workflow
from .sync import SyncClient

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .ports import Store

T = TypeVar("T")


class Background(SyncClient):
    """A `SyncClient` that also works on what it starts; a context manager, and safe to share between threads.

    Args:
        app: the App.
        url: of an embedded store, `sqlite:///everstep.db` by default; or an open store.
        options: of `Runtime`.

    Raises (by every method): as `Client`, and UsageError where an event loop runs: use `Runtime` there.
    """

    def __init__(self, app: App, url: str | Store = "sqlite:///everstep.db", **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="everstep", daemon=True)
        self._thread.start()
        try:
            self._runtime = self._wait(self._open(app, url, options))
        except BaseException:
            self._end()
            raise
        self._client = self._runtime.client

    async def _open(self, app: App, url: str | Store, options: dict[str, Any]) -> Runtime:
        runtime = Runtime(app, url, **options)
        self._serving = asyncio.create_task(runtime.serve())
        return runtime

    @overload
    def run(self, workflow: Workflow[..., T], /, *args: Any, id: str, timeout: float | None = None) -> T: ...
    @overload
    def run(self, workflow: str, /, *args: Any, id: str, timeout: float | None = None) -> Any: ...
    def run(self, workflow: Any, /, *args: Any, id: str, timeout: float | None = None) -> Any:
        """Start a workflow, or attach to it, and return its result.

        Args:
            timeout: seconds to wait for it; None for as long as it takes.

        Raises:
            StillPending: it is not there in time, and goes on by itself.
            Halted, Exception: as `Handle.result`.
        """
        return self.start(workflow, *args, id=id).result(timeout)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        work.close()
        raise UsageError("Background was called where an event loop runs; use everstep.Runtime there")

    async def _shut(self) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        await self._runtime.__aexit__()

    def close(self) -> None:
        """End what is being worked on, and the thread; every run is kept."""
        if self._thread.is_alive():
            self._wait(self._shut())
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
