"""A pytest plugin: the core's own suite on CPython in WebAssembly, where there is no thread, no socket and no process.

Pyodide's event loop belongs to JavaScript and cannot be run to completion, so `asyncio.run` gets a loop of ours: plain
asyncio whose selector only sleeps. What cannot be there is left out by name, each with its reason, and counted.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

LEFT_OUT = {}


class HandLoop(asyncio.BaseEventLoop):
    """asyncio without a selector: it waits by sleeping, and nothing wakes it."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = self

    def select(self, timeout: float | None) -> list[Any]:
        if timeout:
            time.sleep(timeout)
        return []

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


_run = asyncio.runners.run


def run(main: Any, *, debug: bool | None = None, loop_factory: Any = None) -> Any:
    return _run(main, debug=debug, loop_factory=loop_factory or HandLoop)


def pytest_configure(config: pytest.Config) -> None:
    asyncio._set_running_loop(None)
    asyncio.run = run
