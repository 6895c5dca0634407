"""A promise of another origin that settles while the run that will wait for it is still busy (rules W4, W5)."""

from __future__ import annotations

import pytest

from everstep.context import Context
from everstep.registry import App
from everstep.testing import Simulation


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_the_run_does_not_wait_for_its_poll(mode: str) -> None:
    app = App("shop")
    simulations: list[Simulation] = []

    @app.step
    async def busy() -> None:
        await simulations[0].client.resolve("shared", 5)

    @app.workflow
    async def waits(ctx: Context) -> int:
        promise = ctx.options(id="shared").promise()
        await ctx.run(busy)
        return await promise

    simulation = Simulation(app, seed=1, mode=mode)
    simulations.append(simulation)
    handle = simulation.start(waits, id="w")
    simulation.advance(seconds=5)

    assert handle.result() == 5
