"""A countdown that survives anything: one notification per tick, a durable sleep in between, "Done" at the end.

Each notification is a step: once it is recorded it is never sent again, however often the process dies. A step that was
under way when the process died runs again, so every notification carries the step's id: whoever receives it can tell a
repetition from news.
"""

from __future__ import annotations

import os
from pathlib import Path

from everstep import App, Context, current_step

app = App("countdown")


class Notifier:
    """Says it aloud and appends it to a file. Provide another one to send mail or post to a chat."""

    def __init__(self, path: Path | str = "notifications.log") -> None:
        self.path = Path(path)

    def send(self, id: str, text: str) -> None:
        print(text, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{id} {text}\n")
            file.flush()
            os.fsync(file.fileno())


app.provide(Notifier())


@app.step
def notify(text: str) -> None:
    step = current_step()
    step.dependency(Notifier).send(step.id, text)


@app.workflow
async def countdown(ctx: Context, count: int, pause: float = 1.0) -> str:
    """Count down from `count` to 1, `pause` seconds apart."""
    for left in range(count, 0, -1):
        await ctx.run(notify, f"{left}")
        await ctx.sleep(pause)
    await ctx.run(notify, "Done")
    return f"counted down from {count}"
