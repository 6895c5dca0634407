"""A trip of three bookings without a transaction over them: what was booked is cancelled, in the opposite order, when
something later fails.

A compensation is a step like any other: recorded once it is done, and tried until it is. So neither a crash nor a
failing service leaves half a trip.
"""

from __future__ import annotations

from pathlib import Path

from everstep import App, Context, Retry, current_step

app = App("saga")


class SoldOut(Exception):
    """No further attempt can mend this."""


class Agency:
    """Books and cancels. This one writes what it did to a file; provide another one that calls the real services.

    The key is the step's id, the same at every attempt: a service that knows it books once.
    """

    def __init__(self, path: Path | str = "bookings.log") -> None:
        self.path = Path(path)

    def book(self, key: str, what: str) -> str:
        if what.startswith("no-"):
            raise SoldOut(what.removeprefix("no-"))
        self._write(f"{key} book {what}")
        return f"{what}-booking"

    def cancel(self, key: str, booking: str) -> None:
        self._write(f"{key} cancel {booking}")

    def _write(self, line: str) -> None:
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


app.provide(Agency())


@app.step(retry=Retry(attempts=4, first=0.5, give_up_on=(SoldOut,)))
def book(what: str) -> str:
    step = current_step()
    return step.dependency(Agency).book(step.id, what)


@app.step(retry=Retry(attempts=None, first=1, cap=600))
def cancel(booking: str) -> None:
    step = current_step()
    step.dependency(Agency).cancel(step.id, booking)


@app.workflow
async def trip(ctx: Context, parts: list[str]) -> dict[str, list[str]]:
    """Book every part, or none: a part called `no-car` is sold out."""
    booked: list[str] = []
    try:
        for part in parts:
            booked.append(await ctx.run(book, part))
    except SoldOut as error:
        for booking in reversed(booked):
            await ctx.run(cancel, booking)
        return {"sold out": [str(error)], "cancelled": list(reversed(booked))}
    return {"booked": booked}
