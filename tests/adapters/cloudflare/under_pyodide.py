"""A pytest plugin: the core's own suite on CPython in WebAssembly, where there is no thread, no socket and no process.

Pyodide's event loop belongs to JavaScript and cannot be run to completion, so `asyncio.run` gets a loop of ours: plain
asyncio whose selector only sleeps. What cannot be there is left out by name, each with its reason, and counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

PROCESS = "starts processes"
THREADS = "starts threads"
FILES = "is about files that several processes share"
COMMANDS = "the command line is no part of a Worker"
CLIENT = "drives the routes with httpx, which wants sockets; in workerd they are driven from outside"
COMPILED = "needs a compiled package"
MINUTES = "takes minutes there, and runs elsewhere"
REPOSITORY = "is about the repository or the installed distribution"

MODULES = {
    "test_cli_*.py": COMMANDS,
    "test_http_*.py": CLIENT,
    "test_models.py": CLIENT,
    "test_processes.py": PROCESS,
    "test_scripts.py": PROCESS,
    "test_dependencies.py": PROCESS,
    "test_plugin.py": PROCESS,
    "test_bad_input.py": FILES,
    "test_liveness.py": FILES,
    "test_sqlite*.py": FILES,
    "test_open_store.py": FILES,
    "test_sync_client.py": THREADS,
    "test_crypto.py": COMPILED,
    "test_coerce_pydantic.py": COMPILED,
    "test_pydantic_ai.py": COMPILED,
    "test_layout.py": REPOSITORY,
    "test_budgets.py": MINUTES,
    "test_crash_everywhere.py": MINUTES,
    "test_differential.py": MINUTES,
    "test_properties.py": MINUTES,
    "test_coerce*.py": MINUTES,
    "test_rules.py": MINUTES,
    "test_service*.py": MINUTES,
    "test_run*.py": MINUTES,
    "test_pull.py": MINUTES,
    "test_groups.py": MINUTES,
    "test_left_to_timers.py": MINUTES,
    "test_staticcheck.py": MINUTES,
    "test_abandoned_step.py": MINUTES,
    "test_conflict_within.py": MINUTES,
}
TESTS = {
    "*::test_nothing_is_imported*": PROCESS,
    "*::*_in_every_process": PROCESS,
    "*::test_the_document_is_drawn_from_the_tables": PROCESS,
    "*test_cron.py::test_without_the_library_the_extra_is_named": PROCESS,
    "*test_cron.py::test_importing_the_service_loads_no_calendar": PROCESS,
    "*test_notes.py::*True]": COMPILED,
}
left_out: Counter[str] = Counter()


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
    for module in (asyncio, asyncio.events):
        module.new_event_loop = HandLoop


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    for pattern, reason in MODULES.items():
        if fnmatchcase(collection_path.name, pattern):
            left_out[f"{collection_path.name}: {reason}"] += 1
            return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = []
    for item in items:
        reason = next((why for pattern, why in TESTS.items() if fnmatchcase(item.nodeid, pattern)), None)
        if reason is None:
            kept.append(item)
        else:
            left_out[f"{item.nodeid.partition('[')[0]}: {reason}"] += 1
    items[:] = kept


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for what, count in sorted(left_out.items()):
        terminalreporter.write_line(f"left out: {what}{f' ({count} cases)' if count > 1 else ''}")
