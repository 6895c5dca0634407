"""System 50, a news agent: look for stories, let a model score the new ones, notify, sleep, for ever. What was seen is
in the recorded results, and is handed on when the run starts over under its own id."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from everstep import App, Context, Retry, current_step
from everstep.models import Message, Model, Scripted, Tool, user
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("news", retry=Retry(attempts=3, first=0.1), retention=timedelta(days=1))


@app.step
def search(topic: str, number: int) -> list[str]:
    """The front page: one story an hour is new, those of the hours before are still there."""
    return [f"{topic} {story}" for story in range(max(1, number - 2), number + 1)]


@app.step
async def score(story: str) -> int:
    answer = await current_step().dependency(Model).reply([user(f"From 0 to 10, how interesting is: {story}")])
    return int(answer.text)


@app.step
def notify(story: str) -> None:
    did(f"notify {story}")


@app.workflow
async def follow(
    ctx: Context,
    topic: str,
    last: int,
    pause: float = 3600,
    life: int = 10,
    number: int = 1,
    seen: list[str] | None = None,
) -> list[str]:
    known = list(seen or [])
    for _ in range(life):
        for story in await ctx.run(search, topic, number):
            if story not in known:
                known.append(story)
                if await ctx.run(score, story) >= 7:
                    await ctx.run(notify, story)
        if number == last:
            return known
        await ctx.sleep(pause)
        number += 1
    return ctx.continue_as_new(topic, last, pause, life, number, known)  # type: ignore[no-any-return]


def scripted(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    story = messages[-1].text.rpartition(": ")[2]
    did(f"score {story}")
    return "9" if int(story.split()[-1]) % 2 else "3"


app.provide(Scripted(scripted))


def stories(last: int) -> list[str]:
    return [f"tides {number}" for number in range(1, last + 1)]


def once(last: int) -> dict[str, int]:
    """Every story scored once, every odd one notified of once."""
    return {f"score {one}": 1 for one in stories(last)} | {f"notify {one}": 1 for one in stories(last)[::2]}


BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


@BOTH
@pytest.mark.parametrize("rounds", [2, 3])
def test_rounds_that_overlap_score_each_story_once(mode: Mode, rounds: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(follow, "tides", rounds)) == stories(rounds)
    assert world.counts() == once(rounds)


@BOTH
@pytest.mark.parametrize("life", [2, 10])
@pytest.mark.parametrize("done", range(1, 11))
def test_killed_in_a_round_nothing_is_scored_again(mode: Mode, life: int, done: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered", done)

    assert sim.run(sim.start(follow, "tides", 3, life=life)) == stories(3)
    assert world.counts() == once(3)


class _Deaf(World):
    def did(self, name: str, /, **detail: object) -> int:
        return 0


def test_a_thousand_rounds_read_no_more_than_a_few_and_remember_all() -> None:
    app.provide(_Deaf())
    sim = Simulation(app, cache=0)  # every wake-up is a cold one and replays
    sim.world.verbose = False
    read: list[int] = []
    kept: list[int] = []
    sim.world.readers.append(lambda caller, id, rows: read.append(len(rows)))
    handle = sim.start(follow, "tides", 1000)
    for _ in range(42):
        sim.advance(days=1)
        sim.call(lambda client: client.sweep())
        kept.append(len(sim.world.store._rows))

    assert handle.result() == stories(1000)
    assert sim.executions == {"search": 1000, "score": 1000, "notify": 500}
    assert max(read) <= 30, "ten rounds' records and the run's own"
    assert max(kept) <= 120


def test_processes_killed_in_a_round_score_nothing_again(tmp_path: Path) -> None:
    world = World(tmp_path, {"score tides 2": ["kill"]})
    arguments = ("tides", 4, 0.001, 2)
    assert run_process(__name__, "follow", *arguments, id="n", folder=tmp_path, kill_at=("delivered", 2)).killed
    assert run_process(__name__, "follow", *arguments, id="n", folder=tmp_path).killed
    assert run_process(__name__, "follow", *arguments, id="n", folder=tmp_path, kill_at=("continued", 1)).killed

    assert run_process(__name__, "follow", *arguments, id="n", folder=tmp_path).result == stories(4)
    assert world.counts() == {**once(4), "score tides 2": 2}


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, follow, "tides", 2, 3600, 1, result=stories(2))
