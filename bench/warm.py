"""A resume in the instance that ran the workflow before: no replay, so history must not matter."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path

from everstep.stores.sqlite import SqliteStore

from .figures import Figure, Scale, Stopwatch, in_turns, ratio
from .programs import app, long
from .rig import Rig

ROW = "resume in a warm instance"


class _Sleeper:
    """A run with so much history, kept warm, that sleeps a minute at a time."""

    def __init__(self, path: Path, history: int) -> None:
        self.rig = Rig(app, SqliteStore(path, synchronous="off"))
        self.rows = 0
        asyncio.run(self._begin(history))

    async def _begin(self, history: int) -> None:
        await self.rig.start(long, history, id="r")
        await self.rig.deliver("r")
        await self.resume(3)

    async def resume(self, times: int) -> list[float]:
        found = []
        for _ in range(times):
            self.rig.clock.advance(60_000)
            self.rig.forget()
            with Stopwatch(1, cpu=True) as watch:
                await self.rig.deliver("r")
            assert len(self.rig.before["resumed"]) == 1
            self.rows = max(self.rows, self.rig.deliveries[0])
            found.append(watch.micros)
        return found


def run(scale: Scale) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        sleepers = {str(size): _Sleeper(Path(folder) / f"{size}.db", size) for size in scale.warm}
        each = max(2, scale.resumes // scale.rounds)
        times = in_turns(
            scale.rounds,
            {
                name: lambda _, sleeper=sleeper: statistics.median(asyncio.run(sleeper.resume(each)))  # type: ignore[misc]
                for name, sleeper in sleepers.items()
            },
        )
        for sleeper in sleepers.values():
            asyncio.run(sleeper.rig.store.close())
    least = str(scale.warm[0])
    return [
        Figure(
            ROW,
            f"{size:,} recorded steps against {scale.warm[0]}",
            ratio(times[str(size)], times[least]),
            budget=1.25,
            note=f"{statistics.median(times[str(size)]):.0f} us, {sleepers[str(size)].rows} row read",
        )
        for size in scale.warm[1:]
    ]
