"""What `everstep run` says while it works, on stderr: plain lines, and on a terminal a moving last line.

It says what was replayed, what runs, and what is waited for until when, because that is what a durable run makes
people wonder about.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.text import Text

from everstep.local import Event

from .words import clean, moment, span


class _Wait:
    """The moving line of a wait: how long it still is, each time it is drawn."""

    def __init__(self, text: str, until: int, now: Callable[[], int]) -> None:
        self._text = text
        self._until = until
        self._now = now

    def __rich__(self) -> Text:
        now = self._now()
        left = f" until {moment(self._until, now)}, {span(self._until - now)}"
        return Text(clean(self._text) + left, style="bright_black")


class Progress:
    """Turns events into lines. A context manager, so that the moving line goes away."""

    def __init__(self, console: Console, now: Callable[[], int], *, quiet: bool = False) -> None:
        self._console = console
        self._now = now
        self._quiet = quiet
        self._status: Status | None = None
        self._steps: dict[str, tuple[str, int, int]] = {}
        self._replayed: set[str] = set()
        self._announced: dict[str, Any] = {}
        self.places: dict[str, str] = {}
        """Where runs that failed here did so."""
        self.on_waiting: Callable[[list[str]], None] | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal and not self._quiet:
            self._status = self._console.status("starting", spinner="dots")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def __call__(self, event: Event) -> None:
        if not self._quiet:
            self._tell(event)

    def say(self, text: str, style: str = "") -> None:
        if not self._quiet:
            self._console.print(Text(clean(text), style=style))

    def _moving(self, text: str) -> None:
        if self._status is not None:
            self._status.update(Text(clean(text), style="bright_black"))

    def _tell(self, event: Event) -> None:
        id, detail = event.id, event.detail
        match event.kind:
            case "acquired":
                self._acquired(id, detail.get("replayed", 0))
            case "step":
                attempt = detail.get("attempt", 1)
                self._steps[id] = (detail.get("name", ""), event.at, attempt)
                again = f", attempt {attempt}" if attempt > 1 else ""
                self._moving(f"{id} {detail.get('name', '')}{again}")
            case "delivered" if id in self._steps:
                name, began, attempt = self._steps.pop(id)
                again = f", attempt {attempt}" if attempt > 1 else ""
                ok = detail.get("state") == "resolved"
                mark = "✓" if ok else "✗"
                self.say(f"{mark} {id} {name}  {span(event.at - began)}{again}", "" if ok else "red")
            case "failed":
                self._failed(event)
            case "settled":
                self.places[id] = detail.get("place", "")
            case "suspended":
                self._suspended(id, detail)
            case "continued":
                self._announced.pop(id, None)
                self.say(f"↻ {id} goes on as generation {detail.get('generation')}")
            case "put off":
                self.say(f"↻ {id} again in {span(detail.get('delay', 0))}: {detail.get('reason', '')}", "yellow")
            case "lost":
                self.say(f"… {id} is worked on by another process")
            case "trouble":
                self.say(f"… {id}: {detail.get('error', '')}; trying again", "yellow")
            case "halted":
                self.say(f"■ {id} halted: {detail.get('reason', '')}", "magenta")
            case _:
                pass

    def _acquired(self, id: str, replayed: int) -> None:
        """Once for each run: what it found recorded when this process first took it up."""
        if id not in self._replayed:
            self._replayed.add(id)
            if replayed:
                results = "1 recorded result" if replayed == 1 else f"{replayed} recorded results"
                self.say(f"▶ {id} resumes: {results} replayed, none of it ran again")
            else:
                self.say(f"▶ {id} starts")
        self._moving(f"{id} is running")

    def _failed(self, event: Event) -> None:
        id, detail = event.id, event.detail
        name, _, attempt = self._steps.pop(id, (detail.get("name", ""), event.at, detail.get("attempt", 1)))
        delay = detail.get("delay")
        text = f"✗ {id} {name}: attempt {attempt} failed: {detail.get('error', '')}"
        if detail.get("place"):
            text += f" ({detail['place']})"
        if delay is not None:
            text += f"; again in {span(delay)}"
        self.say(text, "yellow")

    def _suspended(self, id: str, detail: dict[str, Any]) -> None:
        waiting, until = list(detail.get("waiting_for", ())), detail.get("until")
        names = ", ".join(waiting[:3]) + (f" and {len(waiting) - 3} more" if len(waiting) > 3 else "")
        text = f"{id} waits for {names}" if names else f"{id} waits"
        now = self._now()
        # A short sleep on a terminal is worth the moving line only; in a log each wait is a line.
        short = self._status is not None and until is not None and until - now < 60_000
        if not short and self._announced.get(id) != (waiting, until):
            self._announced[id] = (waiting, until)
            end = "" if until is None else f" until {moment(until, now)}, {span(until - now)}"
            self.say(f"◌ {text}{end}", "cyan")
        if until is None:
            self._moving(text)
        elif self._status is not None:
            self._status.update(_Wait(text, until, self._now))
        if self.on_waiting is not None:
            self.on_waiting(waiting)
