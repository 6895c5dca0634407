"""A file of records, imported in batches: killed anywhere, it goes on with the batch it was in.

The file is passed by name, never by content; each batch reads its own lines. After a few batches the run starts over
under its own id with how far it is, so a file of any length has a short history.
"""

from __future__ import annotations

import csv
import sys
from itertools import islice
from pathlib import Path
from typing import TypedDict

from everstep import App, Context, Retry, current_step

app = App("batch", retry=Retry(attempts=5, first=0.5))


class Progress(TypedDict):
    imported: int
    refused: int


class Table:
    """Where records go; a record's key is unique, so that importing it twice imports it once."""

    def __init__(self, path: Path | str = "imported.db") -> None:
        self.path = str(path)

    def insert(self, records: list[dict[str, str]]) -> None:
        import sqlite3  # not everywhere: where there is none, another table is provided

        with sqlite3.connect(self.path) as db:
            db.execute("CREATE TABLE IF NOT EXISTS records (id TEXT PRIMARY KEY, name TEXT, cents INTEGER)")
            rows = [(one["id"], one["name"], int(one["cents"])) for one in records]
            db.executemany("INSERT OR IGNORE INTO records VALUES (?, ?, ?)", rows)


app.provide(Table())


def found(path: str) -> Path:
    """A file where one works, or among what was deployed with this module."""
    return next((one for place in ("", *sys.path) if (one := Path(place) / path).is_file()), Path(path))


@app.step
def import_batch(path: str, first: int, size: int) -> list[int]:
    """Import `size` records from the one numbered `first` on; returns how many were good, and how many were not."""
    with found(path).open(newline="", encoding="utf-8") as file:
        records = list(islice(csv.DictReader(file), first, first + size))
    good = [one for one in records if one.get("id") and (one.get("cents") or "").lstrip("-").isdecimal()]
    current_step().dependency(Table).insert(good)
    return [len(good), len(records) - len(good)]


@app.workflow
async def load(
    ctx: Context, path: str, size: int = 10, batches: int = 50, first: int = 0, so_far: Progress | None = None
) -> Progress:
    """Import a CSV file with the columns id, name and cents, `size` records a batch."""
    progress = so_far or Progress(imported=0, refused=0)
    for _ in range(batches):
        good, bad = await ctx.run(import_batch, path, first, size)
        progress = Progress(imported=progress["imported"] + good, refused=progress["refused"] + bad)
        first += size
        if good + bad < size:
            return progress
    return ctx.continue_as_new(path, size, batches, first, progress)  # type: ignore[no-any-return]
