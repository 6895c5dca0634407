"""The Worker: the same workflows as everywhere, with a notifier for a place without files."""

from __future__ import annotations

from app import Notifier, app

from everstep_cloudflare import handler


class Logged(Notifier):
    """Writes to the Worker's log; whoever reads it finds each notification under its step's id."""

    def send(self, id: str, text: str) -> None:
        print(f"notification {id}: {text}", flush=True)


app.provide(Logged())

Default, Run, Index = handler(app)
