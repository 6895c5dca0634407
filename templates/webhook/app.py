"""Payment events, each handled once: the event's id is the run's id, so that a provider's repetitions attach.

The route checks the signature, makes the start durable, and answers; the work is done afterwards, by whichever process
is there. `uvicorn --factory app:site` serves the route, `everstep dev app:app` does the work; one may be down while the
other is up.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Any

from everstep import App, Client, Context, Retry, current_step

app = App("webhook", retry=Retry(attempts=5, first=0.5))


class BadSignature(Exception):
    """The event does not come from whom it says."""


class Books:
    """Appends to a file. Provide another one that writes where your books are."""

    def __init__(self, path: Path | str = "books.log") -> None:
        self.path = Path(path)

    def enter(self, key: str, what: str) -> None:
        print(what, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{key} {what}\n")


app.provide(Books())


@app.step
def validate(event: dict[str, Any]) -> int:
    cents = event.get("cents")
    if not isinstance(cents, int) or cents <= 0:
        raise ValueError(f"an event of {cents!r} cents")
    return cents


@app.step
def enter(what: str) -> None:
    step = current_step()
    step.dependency(Books).enter(step.id, what)


@app.workflow
async def payment(ctx: Context, event: dict[str, Any]) -> str:
    cents = await ctx.run(validate, event)
    await ctx.run(enter, f"received {cents} of {event['id']}")
    await ctx.run(enter, f"receipt sent for {event['id']}")
    return f"{event['id']} is booked"


def signature(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def receive(client: Client, secret: str, body: bytes, signed: str) -> str:
    """Start what an event asks for, once; returns the run's id. Raises BadSignature, ValueError, KeyError."""
    if not hmac.compare_digest(signature(secret, body), signed):
        raise BadSignature
    event = json.loads(body)
    return (await client.options(id=f"payment-{event['id']}").start(payment, event)).id


def site() -> Any:
    """The route, for any ASGI server."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    client = Client.open(os.environ.get("EVERSTEP_STORE", "sqlite:///everstep.db"), app=app)
    secret = os.environ["WEBHOOK_SECRET"]

    async def hook(request: Request) -> Response:
        try:
            id = await receive(client, secret, await request.body(), request.headers.get("x-signature", ""))
        except (BadSignature, ValueError, KeyError) as error:
            return JSONResponse({"detail": type(error).__name__}, 400)
        return JSONResponse({"id": id})

    return Starlette(routes=[Route("/events", hook, methods=["POST"])])
