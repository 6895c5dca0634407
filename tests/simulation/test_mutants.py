"""A simulation that catches nothing proves nothing: kernels broken on purpose, each caught within a bounded number of
histories."""

from __future__ import annotations

import pytest

from everstep import App, Context
from everstep.testing import Faults, Simulation

from .corpus import SCENARIOS
from .histories import History, undisturbed
from .mutants import BREEDING, MUTANTS, Mutant, applied


def caught(mutant: Mutant) -> str:
    """What gave it away; empty if nothing did."""
    scenarios = [one for one in SCENARIOS if not mutant.only or one.workflow.name in mutant.only]
    for one in scenarios:
        undisturbed(one)
    with applied(mutant):
        for seed in range(mutant.seeds):
            try:
                problems = History(seed, scenarios, **mutant.fixed).play()
            except Exception as error:
                return f"{type(error).__name__}: {error}"
            if problems:
                return problems[0]
    return ""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_broken_kernel_is_caught(mutant: Mutant) -> None:
    assert caught(mutant), f"{mutant.name} (rule {mutant.rule}) went unseen through {mutant.seeds} histories"


app = App("breeding")


@app.workflow
async def ticking(ctx: Context, times: int) -> int:
    for _ in range(times):
        await ctx.sleep(60)
    return times


def deliveries(times: int) -> int:
    """How many deliveries a run of so many sleeps takes where every message is delivered twice now and then."""
    faults = Faults(crash=0, stall=0, unavailable=0, unknown=0, late=0, early=0, lost=0, duplicate=0.3, limit=40)
    sim = Simulation(app, 1, mode="queue", faults=faults, tokens=False)
    sim.run(sim.start(ticking, times))
    return sim.cost().wakeups["delivered"]


def test_w6_duplicates_do_not_breed() -> None:
    assert deliveries(100) < 100 + 3 * 40


def test_w6_duplicates_that_breed_are_noticed() -> None:
    with applied(BREEDING):
        assert deliveries(100) > 100 + 3 * 40
