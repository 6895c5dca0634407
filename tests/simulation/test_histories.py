"""Seeded histories over the corpus: everything that can go wrong, and what must hold nevertheless.

`EVERSTEP_SIMULATE_SECONDS` says for how long (20 by default), `EVERSTEP_SIMULATE_COUNT` how many instead, and
`EVERSTEP_SIMULATE_FROM` where to begin (`make simulate`). A seed that fails is told with what happened last; it goes to
the list of regressions below once it is understood.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter

import pytest

from .corpus import SCENARIOS
from .histories import Broken, History

SECONDS = float(os.environ.get("EVERSTEP_SIMULATE_SECONDS") or 20)
COUNT = int(os.environ.get("EVERSTEP_SIMULATE_COUNT") or 0)
FIRST = int(os.environ.get("EVERSTEP_SIMULATE_FROM") or 0)

REGRESSIONS = {
    185: "a settled child with two awaiters",
    201: "suspended, and dead before it had looked again (W4)",
    294: "the message in a holder's hand, taken back by whoever armed it",
    504: "a deadline's wake-up that came early",
    882: "an orphan of other work under the same id",
    2379: "a wake-up that came before its commit (W3)",
    2469: "a message that was given to others, standing for a new lease",
    2980: "a task taken on a reading from before its lease ended (P2.4)",
    3363: "a holder whose run ended by its own deadline",
    3824: "a settler that left the rest to a look that had just been taken (W5)",
}


@pytest.mark.parametrize("seed", REGRESSIONS, ids=str)
def test_a_history_that_went_wrong_once(seed: int) -> None:
    History(seed, resumes=False).check()


def test_every_scenario_ends_undisturbed_and_survives_a_few_histories() -> None:
    for index, one in enumerate(SCENARIOS):
        for seed in (10_000 + index, 20_000 + index):
            History(seed, [one]).check()


def test_the_same_seed_tells_the_same_history() -> None:
    first, again = History(77), History(77)

    first.play()
    again.play()

    assert [str(event) for event in first.sim.events] == [str(event) for event in again.sim.events]


def test_histories(capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    told: Counter[str] = Counter()
    seed = FIRST
    while seed - FIRST < COUNT if COUNT else time.monotonic() - began < SECONDS:
        history = History(seed)
        problems = history.play()
        if problems:
            # What another process saw must be seen again, or the seed says nothing.
            raise Broken(f"after {seed - FIRST} sound histories:\n{history.describe()}")
        told["runs"] += len(history.runs)
        told["faults"] += (
            history.sim.world.chaos.faults.limit - history.sim.world.chaos.left if history.sim.world.chaos else 0
        )
        told["replays"] += history.witness.replays
        told["events"] += len(history.sim.events)
        seed += 1
    with capfd.disabled():
        sys.stderr.write(
            f"\n{seed - FIRST} histories from seed {FIRST}: {told['runs']} runs, {told['events']} events, "
            f"{told['faults']} faults, {told['replays']} runs replayed from their journal alone, all sound\n"
        )
    assert seed > FIRST
