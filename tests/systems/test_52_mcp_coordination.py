"""System 52, MCP tools that coordinate by promise id: start, probe and await share one run, keyed by the job's name."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Context, current_step
from everstep.mcp import Await, Probe, Tool, Tools
from tests.systems.scaffold import World, did, survives
from tests.systems.tool_server import FOLDER, TRANSPORTS, call, connected, dies_in, refused, settle_in, settled, until

app = App("gathering")


class Library:
    """Where things are found. Provide another one that looks."""

    async def search(self, job: str) -> list[str]:
        return [f"{job}-1", f"{job}-2"]


app.provide(Library())


@app.step
async def collect(job: str) -> list[str]:
    """Long work without a checkpoint in it: after a crash it starts from the top."""
    did("collect", job=job)
    return await current_step().dependency(Library).search(job)


@app.workflow
async def gather(ctx: Context, job: str) -> list[str]:
    return await ctx.run(collect, job)


class Gated(Library):
    """Does not answer while there is a file `<job>.gate`."""

    async def search(self, job: str) -> list[str]:
        gate = Path(os.environ.get(FOLDER, "")) / f"{job}.gate"
        await until(lambda: not gate.exists())
        return await super().search(job)


settle_in(app)
if FOLDER in os.environ:
    app.provide(Gated())

tools = Tools(
    app,
    Tool(gather, name="start_gathering", description="Begin a job in the background.", id="job-{job}", wait=0),
    Probe("probe_status", id="job-{job}"),
    Await("await_result", id="job-{job}"),
    standard=False,
)

PROGRAM = f"{__name__}:tools"
BOTH = pytest.mark.parametrize("transport", TRANSPORTS)


async def begun(world: World, count: int = 1) -> None:
    await until(lambda: world.count("collect") >= count)


@BOTH
def test_a_job_is_started_probed_and_awaited_by_its_name(transport: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    gate = tmp_path / "papers.gate"
    gate.touch()

    async def talk() -> None:
        async with connected(transport, PROGRAM, tmp_path) as client:
            listed = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
            assert set(listed) == {"start_gathering", "probe_status", "await_result"}
            assert set(listed["start_gathering"]["properties"]) == {"job"}

            started = await call(client, "start_gathering", job="papers")
            assert started["id"] == "job-papers"
            assert "value" not in started, "it returns at once"
            await call(client, "start_gathering", job="papers")
            await call(client, "start_gathering", job="patents")
            await begun(world, 2)

            assert (await call(client, "probe_status", job="papers"))["status"] == "running"
            await settled(client, "probe_status", job="patents")
            early = await call(client, "await_result", jobs=["papers", "patents"], wait_seconds=0.2)
            assert [one["status"] for one in early["runs"]] == ["running", "done"]
            gate.unlink()
            both = await call(client, "await_result", jobs=["papers", "patents"])
            assert [one["value"] for one in both["runs"]] == [["papers-1", "papers-2"], ["patents-1", "patents-2"]]
            assert (await call(client, "probe_status", job="papers"))["status"] == "done"

    asyncio.run(talk())

    assert sorted(one["job"] for one in world.effects("collect")) == ["papers", "patents"]


@BOTH
def test_the_server_is_replaced_in_mid_job(transport: str, tmp_path: Path) -> None:
    """The server that has the job ends with its session; its successor takes the job over, from the top."""
    world = World(tmp_path)
    gate = tmp_path / "papers.gate"
    gate.touch()

    async def talk() -> dict[str, Any]:
        async with connected(transport, PROGRAM, tmp_path) as client:
            await call(client, "start_gathering", job="papers")
            await begun(world)
        gate.unlink()
        async with connected(transport, PROGRAM, tmp_path) as client:
            return await call(client, "await_result", jobs=["papers"])

    assert asyncio.run(talk())["runs"][0]["value"] == ["papers-1", "papers-2"]
    assert world.count("collect") == 2


def test_killed_in_mid_job_the_leaf_runs_again_and_there_is_one_result(tmp_path: Path) -> None:
    world = World(tmp_path, {"collect": ["kill"]})

    async def talk() -> list[dict[str, Any]]:
        # The kill may come before the answer or after it; await_result is where it cannot be missed.
        calls = ("start_gathering", {"job": "papers"}), ("await_result", {"jobs": ["papers"]})
        await dies_in("stdio", PROGRAM, tmp_path, *calls)
        async with connected("stdio", PROGRAM, tmp_path) as client:
            first = await call(client, "await_result", jobs=["papers"])
            await call(client, "start_gathering", job="papers")
            return [first, await call(client, "await_result", jobs=["papers"])]

    first, second = asyncio.run(talk())

    assert first == second
    assert first["runs"][0]["value"] == ["papers-1", "papers-2"]
    assert world.count("collect") == 2


@BOTH
def test_an_unknown_job_is_a_clean_error(transport: str, tmp_path: Path) -> None:
    async def talk() -> None:
        async with connected(transport, PROGRAM, tmp_path) as client:
            assert "there is no run 'job-nobody'" in await refused(client, "probe_status", job="nobody")
            assert "there is no run 'nobody'" in await refused(client, "await_result", jobs=["nobody"])
            assert "jobs must be a list" in await refused(client, "await_result", jobs="nobody")
            assert "is missing the argument 'job'" in await refused(client, "start_gathering")

    asyncio.run(talk())


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, gather, "papers", result=["papers-1", "papers-2"])
