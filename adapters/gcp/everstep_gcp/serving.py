"""One event loop for a process that serves each request on a thread of its own, as functions-framework does.

The framework imports a function before it forks its worker, and threads and connections do not cross a fork: the loop
starts with the first request, in the process that got it. Everything asynchronous lives there, so that what is kept
warm and what is connected serves every request.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

T = TypeVar("T")

Scope = MutableMapping[str, Any]
ASGI = Callable[[Any, Any, Any], Awaitable[None]]


class LoopThread:
    """An event loop on a daemon thread; another one in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._process != os.getpid():
            with self._lock:
                if self._loop is None or self._process != os.getpid():
                    loop = asyncio.new_event_loop()
                    threading.Thread(target=loop.run_forever, name="everstep", daemon=True).start()
                    self._loop, self._process = loop, os.getpid()
        return self._loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Its result, or what it raised; the calling thread waits."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def stop(self) -> None:
        """End the thread."""
        loop, self._loop = self._loop, None
        if loop is not None and self._process == os.getpid():
            loop.call_soon_threadsafe(loop.stop)


def wsgi(app: ASGI, loop: asyncio.AbstractEventLoop) -> Any:
    """An ASGI app as a WSGI one that runs on `loop`. Ids hold slashes, so the path is handed on as it was sent, too."""
    from a2wsgi import ASGIMiddleware

    async def with_raw_path(scope: Scope, receive: Any, send: Any) -> None:
        environ = scope.get("wsgi_environ") or {}
        raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
        if raw and "raw_path" not in scope:
            path = raw.partition("?")[0]
            if path.startswith("/"):
                scope["raw_path"] = path.encode("latin-1")
        await app(scope, receive, send)

    return ASGIMiddleware(with_raw_path, loop=loop)  # type: ignore[arg-type]
