"""A body whose id is taken by other work is told what it can do about it, and no more than that."""

from __future__ import annotations

import pytest

from everstep import App, Conflict, Context
from everstep.testing import Simulation

app = App("conflicts")


@app.workflow
async def work(ctx: Context, number: int) -> int:
    return number


@app.workflow
async def sharing(ctx: Context, number: int) -> str:
    try:
        await ctx.options(id="shared").rpc(work, number)
    except Conflict as error:
        return str(error)
    return ""


@app.workflow
async def starting(ctx: Context, number: int) -> str:
    try:
        await ctx.options(id="shared").detached(work, number)
    except Conflict as error:
        return str(error)
    return ""


@pytest.mark.parametrize("workflow", [sharing, starting])
def test_it_is_not_sent_to_an_option_that_only_start_has(workflow: object) -> None:
    sim = Simulation(app)
    assert sim.run(sim.start(workflow, 1)) == ""  # type: ignore[call-overload]
    said = sim.run(sim.start(workflow, 2, id="again"))  # type: ignore[call-overload]

    assert said == "'shared' exists and does other work than work() with these arguments; choose another id"
    with pytest.raises(Conflict, match='or pass on_conflict="attach"'):
        sim.start(work, 3, id="shared")
