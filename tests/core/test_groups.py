"""Several Apps on one store, several members of one App: each takes what is addressed to it, and leaves the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from everstep import App, Context, Runtime, UnknownFunction
from everstep.local import Event
from everstep.promise import group_of, is_ours, member_of
from everstep.testing import Simulation, crash_everywhere

front, back = App("front"), App("back")


@back.step
def add(left: int, right: int) -> int:
    return left + right


@back.workflow
async def double(ctx: Context, number: int) -> int:
    return await ctx.run(add, number, number)


@front.workflow
async def ask(ctx: Context, number: int) -> list[int]:
    here = ctx.rpc(double, number)
    by_name = ctx.options(target="everstep://back").rpc("double", number)
    step = ctx.options(target="everstep://back").rpc("add", number, 1)
    return [await here, await by_name, await step]


@front.workflow
async def prefer(ctx: Context, member: str) -> int:
    return await ctx.options(target=f"everstep://back/{member}").rpc("add", 1, 2)


@pytest.mark.parametrize(
    ("target", "group", "member", "ours"),
    [
        ("everstep://back", "everstep://back", "", True),
        ("everstep://back/two", "everstep://back", "two", True),
        ("everstep://", "everstep://", "", True),
        ("poll://any@back/two", "poll://any@back/two", "", False),
        ("https://back.example/two", "https://back.example/two", "", False),
    ],
)
def test_a_target_names_a_group_and_perhaps_a_member(target: str, group: str, member: str, ours: bool) -> None:
    assert (group_of(target), member_of(target), is_ours(target)) == (group, member, ours)


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_each_app_runs_what_is_addressed_to_it(mode: object) -> None:
    sim = Simulation(front, others=[back], mode=mode)  # type: ignore[arg-type]
    who: dict[str, set[str]] = {}

    def see(event: object) -> None:
        who.setdefault(event.kind, set()).add(event.who)  # type: ignore[attr-defined]

    sim.world.listeners.append(see)  # type: ignore[arg-type]

    assert sim.run(sim.start(ask, 4)) == [8, 8, 5]
    assert who["step"] == {"i2"}
    assert who["acquired"] == {"i1", "i2"}


def test_a_client_starts_what_only_another_app_knows() -> None:
    sim = Simulation(front, others=[back])
    sim.call(lambda client: client.options(id="d", target="everstep://back").start("double", 4))
    assert sim.run("d") == 8

    with pytest.raises(UnknownFunction):
        sim.call(lambda client: client.options(target="everstep://front/one").start("double", 4))


def test_it_survives_a_crash_at_every_point() -> None:
    report = crash_everywhere(front, ask, 4, others=[back], modes=("queue",), steps_per_invocation=None)

    assert report.result == [8, 8, 5]
    assert report.executions == {"add": 2}


@asynccontextmanager
async def serving(app: App, url: str, *seen: list[Event], member: str | None = None) -> AsyncIterator[Runtime]:
    def see(event: Event) -> None:
        for one in seen:
            one.append(event)

    async with Runtime(app, url, member=member, on_event=see, concurrency=1) as runtime:
        work = asyncio.create_task(runtime.serve())
        try:
            yield runtime
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


def test_a_runtime_neither_takes_nor_delays_the_work_of_another_app(tmp_path: Path) -> None:
    async def story() -> None:
        url = f"sqlite:///{tmp_path / 'db'}"
        async with serving(front, url) as runtime:
            handle = await runtime.client.start(double, 4, id="d")
            before = (await runtime.store.load(["d"]))["d"]
            await asyncio.sleep(0.2)
            assert (await runtime.store.load(["d"]))["d"] == before
            async with serving(back, url):
                assert await handle.result(timeout=10) == 8

    asyncio.run(story())


def test_work_that_waits_for_another_app_does_not_stand_in_the_way(tmp_path: Path) -> None:
    @front.workflow(name="here")
    async def here(ctx: Context) -> str:
        return "here"

    async def story() -> None:
        async with serving(front, f"sqlite:///{tmp_path / 'db'}") as runtime:
            for number in range(20):
                await runtime.client.start(double, number, id=f"d{number}")
            handle = await runtime.client.start(here, id="h")
            assert await handle.result(timeout=20) == "here"

    asyncio.run(story())


@pytest.mark.parametrize("present", [["one", "two"], ["two", "one"], ["two"]])
def test_a_preferred_member_comes_first_and_is_not_waited_for(tmp_path: Path, present: list[str]) -> None:
    async def story() -> list[str]:
        url = f"sqlite:///{tmp_path / 'db'}"
        seen: dict[str, list[Event]] = {name: [] for name in present}
        async with serving(front, url) as runtime:
            handle = await runtime.client.start(prefer, "one", id="p")
            async with serving(back, url, seen[present[0]], member=present[0]):
                if len(present) == 1:
                    assert await handle.result(timeout=20) == 3
                else:
                    async with serving(back, url, seen[present[1]], member=present[1]):
                        assert await handle.result(timeout=20) == 3
        return [name for name in present if any(event.kind == "step" for event in seen[name])]

    assert asyncio.run(story()) == ["one" if "one" in present else "two"]
