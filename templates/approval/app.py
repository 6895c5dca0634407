"""An expense that a person approves. The link names a promise; until it is settled, nothing runs and nothing is paid.

Whoever is asked answers with a button: on the page of a signed link, on the live page of `everstep dev`, or with
`everstep resolve`. An answer counts once; after the deadline it is refused, and the expense was declined.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from everstep import App, Context, PromiseTimedOut, current_step
from everstep.tokens import sign

app = App("approval")

SMALL = 5_000
"""Cents that nobody is asked about."""


class Mail:
    """Says it aloud and appends it to a file. Provide another one that sends it."""

    def __init__(self, path: Path | str = "mail.log") -> None:
        self.path = Path(path)

    def send(self, key: str, text: str) -> None:
        """`key` is the same when a mail is sent again because nobody could tell whether it was sent."""
        print(text, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{key} {text}\n")


app.provide(Mail())


@app.step
def ask(question: str, promise_id: str, expires_at: int) -> None:
    secret = os.environ.get("EVERSTEP_SECRET")
    base = os.environ.get("EVERSTEP_URL") or "http://127.0.0.1:8001"
    where = f"everstep resolve {promise_id} true"
    if secret:
        where = f"{base}/approve/{sign(secret, promise_id, expires_at, question=question)}"
    step = current_step()
    step.dependency(Mail).send(step.id, f"{question} {where}")


@app.step
def tell(text: str) -> None:
    step = current_step()
    step.dependency(Mail).send(step.id, text)


@app.step
def pay(who: str, cents: int) -> str:
    """Whoever pays knows the payment by its key, and pays it once."""
    return f"payment-{current_step().id}"


@app.workflow
async def expense(ctx: Context, who: str, cents: int, days: float = 7) -> str:
    """Pay at once what is small, and the rest if somebody approves it within some days."""
    if cents > SMALL:
        limit = timedelta(days=days)
        approved = ctx.promise(timeout=limit, tags={"asks": "approval"})
        expires_at = int((ctx.now() + limit).timestamp() * 1000)
        await ctx.run(ask, f"{who} asks for {cents / 100:.2f}. Approve?", approved.id, expires_at)
        try:
            verdict = await approved
        except PromiseTimedOut:
            verdict = False
        if not verdict:
            await ctx.run(tell, f"{who}: your expense of {cents / 100:.2f} was declined")
            return "declined"
    receipt = await ctx.run(pay, who, cents)
    await ctx.run(tell, f"{who}: you get {cents / 100:.2f}, {receipt}")
    return receipt
