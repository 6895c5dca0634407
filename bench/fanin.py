"""A fan-in of 100 remote children by `gather`: how often the parent is woken up for it (rules P5, B3)."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from everstep.stores.memory import MemoryStore
from everstep.stores.sqlite import SqliteStore

from .figures import Figure, Scale
from .requests import fan_in, settled_fan_in

ROW = "fan-in of 100 by gather"


def run(scale: Scale) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        sqlite = SqliteStore(Path(folder) / "fan.db", synchronous="off")
        children = {"memory": asyncio.run(fan_in(MemoryStore(), 100)), "SQLite": asyncio.run(fan_in(sqlite, 100))}
        promises, _ = asyncio.run(settled_fan_in(MemoryStore(), 100))
        asyncio.run(sqlite.close())
    found = [
        Figure(ROW, f"wake-ups of the parent, {name}", rig.acquired["f"], "wake-ups", 1)
        for name, (rig, _, _) in children.items()
    ]
    return [*found, Figure(ROW, "wake-ups of the parent of 100 promises", promises.acquired["a"], "wake-ups", 1)]
