"""System 7, load over a group of workers: calls are addressed to any member of a group, and what a member held when it
died goes to another once its lease is over."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from everstep import App, Context, Retry, Runtime
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from everstep.testing.world import Caller
from tests.systems.scaffold import World, did, serve_process, survives

app = App("front")
group = App("workers", retry=Retry(attempts=3, first=0.1))


@group.step
async def work(job: int) -> int:
    did(f"job {job}")
    await asyncio.sleep(0.5)
    return job * job


@group.workflow
async def do(ctx: Context, job: int) -> int:
    return await ctx.run(work, job)


@app.workflow
async def spread(ctx: Context, jobs: int) -> list[int]:
    calls = [ctx.options(target="everstep://workers").rpc("do", job) for job in range(jobs)]
    return await asyncio.gather(*calls)


BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])
SQUARES = [job * job for job in range(20)]


@BOTH
def test_twenty_jobs_are_spread_over_three_instances(mode: Mode) -> None:
    world = group.provide(World())
    sim = Simulation(app, others=[group], instances=3, mode=mode, seed=7)
    workers: Counter[str] = Counter()
    sim.world.listeners.append(lambda event: workers.update([event.who] if event.kind == "step" else []))

    assert sim.run(sim.start(spread, 20)) == SQUARES
    assert len(workers) == 3
    assert sum(workers.values()) == 20
    assert world.counts() == {f"job {job}": 1 for job in range(20)}


@BOTH
def test_what_a_dead_instance_held_is_done_by_another_after_its_lease(mode: Mode) -> None:
    world = group.provide(World())
    sim = Simulation(app, others=[group], instances=3, mode=mode)
    handle = sim.start(spread, 3)
    sim.advance(milliseconds=250)
    holder = next(event.who for event in sim.events if (event.kind, event.detail.get("name")) == ("step", "work"))
    began = sim.now_ms
    sim.world.callers[holder].crash()
    sim.advance(seconds=50)
    assert not handle.done

    assert sim.run(handle) == SQUARES[:3]
    assert 59_000 < sim.now_ms - began < 130_000
    assert sum(count - 1 for count in world.counts().values()) >= 1, "what was under way ran again"
    assert {event.who for event in sim.events if event.kind == "settled"} & {holder} == set()


class Late:
    """Holds the first write after a step for longer than any lease: its instance becomes a zombie."""

    sim: Simulation
    zombie: Caller | None = None

    async def before(self, caller: Caller, point: str, subject: str) -> None:
        world = self.sim.world
        if self.zombie is None and point == "store.commit" and not caller.client and world.executions:
            self.zombie = caller
            await world.hold(caller, self.sim.now_ms + 200_000)

    async def after(self, caller: Caller, point: str, subject: str) -> None:
        pass


@BOTH
def test_the_late_write_of_a_zombie_is_refused_by_the_fence(mode: Mode) -> None:
    world = group.provide(World())
    late = Late()
    sim = late.sim = Simulation(group, instances=2, mode=mode, director=late)
    handle = sim.start(do, 3, id="z")
    assert sim.run(handle) == 9
    written = sim.records("z")
    sim.advance(minutes=10)

    assert late.zombie is not None
    assert [event.who for event in sim.events if event.kind == "lost"] == [late.zombie.name]
    assert [event.who for event in sim.events if event.kind == "settled"] != [late.zombie.name]
    assert sim.records("z") == written, "it wrote nothing"
    assert world.count("job 3") == 2


def test_processes_share_a_group_and_a_killed_one_is_replaced_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, {"job 1": ["kill"]})

    async def story() -> list[int]:
        group.provide(world)
        url = f"sqlite:///{tmp_path / 'store.db'}"
        async with Runtime(app, url) as front:
            serving = [asyncio.create_task(front.serve())]
            handle = await front.client.start(spread, 3, id="s")
            first = await asyncio.to_thread(serve_process, f"{__name__}:group", folder=tmp_path, until=("never", 1))
            assert first.killed
            async with Runtime(group, url) as one, Runtime(group, url) as two:
                serving += [asyncio.create_task(runtime.serve()) for runtime in (one, two)]
                value: list[int] = await handle.result(timeout=60)
                for task in serving:
                    task.cancel()
                await asyncio.gather(*serving, return_exceptions=True)
                return value

    assert asyncio.run(story()) == SQUARES[:3]
    assert world.count("job 1") == 2


def test_it_survives_a_crash_at_every_point() -> None:
    group.provide(World())

    survives(app, spread, 2, result=[0, 1], others=[group])
