"""`everstep run`: a run to its end, in this process. Give the same command again after any death, and it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

from rich.console import Console

from everstep.client import Client
from everstep.clock import SystemClock
from everstep.errors import EverstepError
from everstep.local import Runtime
from everstep.registry import App
from everstep.views import PromiseView

from .options import DONE, FAILED, PENDING
from .progress import Progress
from .show import outcome, print_json
from .words import clean


def code_of(view: PromiseView) -> int:
    """The exit code a promise's state stands for."""
    if view.pending:
        return PENDING
    return DONE if view.state == "resolved" else FAILED


async def run(
    app: App,
    url: str,
    workflow: str,
    args: list[Any],
    kwargs: dict[str, Any],
    *,
    id: str | None,
    tags: dict[str, str],
    attach: bool,
    timeout: float | None,
    each_step: bool,
    as_json: bool,
    quiet: bool,
    console: Console,
    again: str,
) -> int:
    """Start or resume, work until it is settled, halted or the time is over, and print the result.

    `again` is the command that goes on, without the id.
    """
    progress = Progress(console, SystemClock().now, quiet=quiet)
    async with Runtime(app, url, steps_per_invocation=1 if each_step else None, on_event=progress) as runtime:
        client = runtime.client
        starter = client.options(id=id, tags=tags or None, on_conflict="attach" if attach else "raise")
        handle = await starter.start(workflow, *args, **kwargs)
        resume = f"{again} --id {_quoted(handle.id)}"
        with progress, _Hints(progress, client):
            if id is None:
                progress.say(f"the run is {handle.id}; to resume it: {resume}")
            before = await client.get(handle.id)
            if not before.pending:
                progress.say(f"{handle.id} was finished before; nothing ran", "bright_black")
            try:
                # With --json, what steps print must not end up in the middle of the JSON.
                with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
                    await asyncio.wait_for(runtime.drive(handle.id), timeout)
            except TimeoutError:
                progress.say(f"still pending after {timeout:g} s; the run is kept, to go on: {resume}", "yellow")
            except asyncio.CancelledError:
                progress.say(f"stopped; the run is kept, to go on: {resume}", "yellow")
                raise
        place = progress.places.get(handle.id, "")
        return await finish(client, handle.id, console, as_json=as_json, place=place)


class _Hints:
    """Says how to settle what a run waits for, where a person is to do it."""

    def __init__(self, progress: Progress, client: Client) -> None:
        self._progress = progress
        self._client = client
        self._told: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> None:
        self._progress.on_waiting = self._waiting

    def __exit__(self, *_: object) -> None:
        self._progress.on_waiting = None
        for task in self._tasks:
            task.cancel()

    def _waiting(self, ids: list[str]) -> None:
        fresh = [id for id in ids if id not in self._told][:5]
        self._told.update(fresh)
        if fresh:
            task = asyncio.get_running_loop().create_task(self._hint(fresh))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _hint(self, ids: list[str]) -> None:
        for id in ids:
            with contextlib.suppress(EverstepError):
                if (await self._client.get(id)).word == "open":
                    self._progress.say(f"  to settle it: everstep resolve {_quoted(id)} VALUE", "bright_black")


async def finish(client: Client, id: str, console: Console, *, as_json: bool, place: str = "") -> int:
    """Print what became of a run, and where it failed if that is known, and return its exit code."""
    view = await client.get(id)
    if as_json:
        print_json(view.to_dict())
    elif view.state == "resolved":
        print_json(view.value)
    if view.halted:
        reason = clean(view.reason or "by hand").rstrip(".")
        console.print(f"halted: {reason}; everstep continue {_quoted(id)} lets it go on", style="magenta", markup=False)
    elif not view.pending and view.state != "resolved":
        at = f" ({place})" if place else ""
        console.print(f"{view.word}: {outcome(view, 2000)}{at}", style="red", markup=False)
    return code_of(view)


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(clean(text))
