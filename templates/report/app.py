"""A report by a schedule: each tick is a run of its own, which gathers, renders and files the report once.

A tick that nobody was there for is made up for later, one that was interrupted goes on where it was, and one that is
delivered twice is one run, because the tick's instant is in its id.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from everstep import App, Context, Retry, current_step

app = App("report", retry=Retry(attempts=5, first=1, cap=60))


class Office:
    """Where figures come from and reports go to. Provide another one that asks a database and sends mail."""

    def __init__(self, folder: Path | str = "reports") -> None:
        self.folder = Path(folder)

    def figures(self, topic: str, day: str) -> dict[str, int]:
        return {"orders": len(topic) * 7, "returned": len(topic), "day": int(day[-2:])}

    def file(self, name: str, text: str) -> str:
        """The same name again writes the same report again, so that a repetition changes nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)


app.provide(Office())


@app.step
def gather(topic: str, day: str) -> dict[str, int]:
    return current_step().dependency(Office).figures(topic, day)


@app.step
def render(topic: str, day: str, figures: dict[str, int]) -> str:
    return f"{topic} on {day}\n{json.dumps(figures, indent=2)}\n"


@app.step
def file(name: str, text: str) -> str:
    return current_step().dependency(Office).file(name, text)


@app.workflow
async def report(ctx: Context, topic: str, day: str | None = None) -> str:
    """The report of a day, by default of the day on which the run was created, whenever it is carried out."""
    of = day or ctx.info.created_at.date().isoformat()
    datetime.fromisoformat(of)  # a day that is none fails here, before anything is done
    figures = await ctx.run(gather, topic, of)
    text = await ctx.run(render, topic, of, figures)
    return await ctx.run(file, f"{topic}-{of}.txt", text)
