"""A store that takes its time: what is started while it answers is not forgotten."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from everstep import App, Context, Runtime
from everstep.rows import Row
from everstep.stores.memory import MemoryStore
from everstep.wakers.local import LocalWaker


class Slow(MemoryStore):
    """Answers after others had their turn, as a database does."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        found = await super().load(ids)
        for _ in range(self._random.choice((0, 1, 5, 50))):
            await asyncio.sleep(0)
        return found

    def local_waker(self) -> LocalWaker:
        """Nobody looks by himself: what is missed is missed."""
        waker = LocalWaker()
        waker.idle = 3600
        return waker


def test_children_created_while_the_store_answers_are_worked_on() -> None:
    app = App("slow")

    @app.step
    def double(n: int) -> int:
        return 2 * n

    @app.workflow
    async def fan(ctx: Context, count: int) -> int:
        return sum(await asyncio.gather(*[ctx.rpc(double, n) for n in range(count)]))

    async def scenario(seed: int) -> int:
        async with Runtime(app, Slow(seed)) as runtime, asyncio.timeout(20):
            return await (await runtime.run(fan, 5, id="fan")).result()

    for seed in range(40):
        assert asyncio.run(scenario(seed)) == 20
