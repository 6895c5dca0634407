"""System 54, scripts as durable asynchronous tasks: named, found again, run by whoever serves their group."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Client, Context
from everstep.mcp import Tools
from tests.systems.scaffold import ROOT, survives
from tests.systems.tool_server import TRANSPORTS, call, connected, environment, refused, settled, until

app = App("scripts")


@app.workflow
async def nightly(ctx: Context, script: str) -> str:
    """A script among the steps of a workflow: an rpc to a runner, wherever it is."""
    listing = await ctx.options(target="bash://").rpc("script", script, "first")
    return f"it said {listing}"


tools = Tools(app, scripts="")
PROGRAM = f"{__name__}:tools"
BOTH = pytest.mark.parametrize("transport", TRANSPORTS)


@contextlib.contextmanager
def runner(folder: Path, *options: str, lease: float = 60) -> Iterator[subprocess.Popen[bytes]]:
    """`everstep bash` in a process of its own, killed in the end."""
    store = f"sqlite:///{folder / 'store.db'}"
    words = [sys.executable, "-m", "everstep.cli", "bash", "--store", store, "--lease", str(lease), *options]
    child = subprocess.Popen(words, cwd=ROOT, env=environment(folder), stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


@BOTH
def test_what_it_writes_is_the_result_and_a_failure_is_what_it_says(transport: str, tmp_path: Path) -> None:
    async def talk() -> None:
        async with connected(transport, None, tmp_path, "--bash") as client:
            hi = await call(client, "run_script", id="greeting", script="echo hi", tags={"kind": "hello"})
            assert (hi["id"], "value" in hi) == ("greeting", False)
            assert (await settled(client, "get_run", id="greeting"))["value"] == "hi"

            await call(client, "run_script", id="broken", script="echo half; echo 'no such disk' >&2; exit 3")
            (broken,) = (await call(client, "listen", ids=["broken"]))["runs"]
            assert broken["status"] == "failed"
            assert broken["error"] == {"type": "ScriptFailed", "message": "no such disk", "attributes": {"code": 3}}
            assert await refused(client, "run_script", id="broken2", script="echo x >&2; exit 1", wait_seconds=9) == "x"

            late = await call(client, "run_script", id="late", script="sleep 60", timeout_seconds=0.3)
            assert (await settled(client, "get_run", id=late["id"]))["status"] == "timed out"

            again = await call(client, "run_script", id="greeting", script="echo hi", tags={"kind": "hello"})
            assert again["value"] == "hi"
            assert "name this one with another id" in await refused(client, "run_script", id="greeting", script="ls")
            found = (await call(client, "search_runs", tags={"kind": "hello"}))["runs"]
            assert [(one["id"], one["status"], one["tags"]) for one in found] == [
                ("greeting", "done", {"kind": "hello"})
            ]

    asyncio.run(talk())


POLL = """
echo "$EVERSTEP_ID $PWD" >> "$OUTSIDE/starts"
while [ ! -e "$OUTSIDE/ready" ]; do sleep 0.05; done
echo "done as $EVERSTEP_ID"
"""


@BOTH
def test_a_polling_loop_outlives_the_client_that_began_it(transport: str, tmp_path: Path) -> None:
    with runner(tmp_path, "--env", f"OUTSIDE={tmp_path}"):

        async def begin() -> None:
            async with connected(transport, PROGRAM, tmp_path, "--no-work") as client:
                await call(client, "run_script", id="build-watch", script=POLL, tags={"team": "ops"})
                await until((tmp_path / "starts").exists)

        async def come_back() -> dict[str, Any]:
            async with connected(transport, PROGRAM, tmp_path, "--no-work") as client:
                (found,) = (await call(client, "search_runs", tags={"team": "ops"}, status="pending"))["runs"]
                (tmp_path / "ready").touch()
                return (await call(client, "await_runs", ids=[found["id"]]))["runs"][0]

        asyncio.run(begin())
        assert asyncio.run(come_back())["value"] == "done as build-watch"
    assert len((tmp_path / "starts").read_text().splitlines()) == 1


def alive(marker: str) -> list[int]:
    """Processes whose command line has this in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked up in /proc")
def test_a_killed_runner_takes_its_script_along_and_the_next_one_begins_at_the_top(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    outside = ("--env", f"OUTSIDE={tmp_path}")
    folders: list[str] = []

    async def talk() -> dict[str, Any]:
        async with Client.open(f"sqlite:///{tmp_path / 'store.db'}") as client:
            await client.start("script", POLL, id="watch", target="bash://")
            with runner(tmp_path, *outside, lease=4) as child:
                await until(lambda: starts.exists() and bool(alive(str(last_folder(starts)))))
                os.kill(child.pid, signal.SIGKILL)
                await until(lambda: not alive(str(last_folder(starts))))
            assert (await client.get("watch")).pending
            with runner(tmp_path, *outside):
                await until(lambda: len(starts.read_text().splitlines()) == 2)
                (tmp_path / "ready").touch()
                view = await client.wait("watch", 30)
            folders.extend(line.split()[1] for line in starts.read_text().splitlines())
            return view.to_dict()

    assert asyncio.run(talk())["value"] == "done as watch"
    assert [line.split()[0] for line in starts.read_text().splitlines()] == ["watch", "watch"], "one id for both"
    assert len(set(folders)) == 2, "the second begins in an empty folder"


def last_folder(starts: Path) -> str:
    return starts.read_text().splitlines()[-1].split()[1]


def test_cancelling_a_script_kills_it(tmp_path: Path) -> None:
    async def talk() -> None:
        with runner(tmp_path, "--env", f"OUTSIDE={tmp_path}", lease=4):
            async with Client.open(f"sqlite:///{tmp_path / 'store.db'}") as client:
                await client.start("script", POLL, id="watch", target="bash://")
                await until((tmp_path / "starts").exists)
                folder = Path(last_folder(tmp_path / "starts"))
                await client.cancel("watch")
                await until(lambda: not folder.exists())
                assert (await client.get("watch")).state == "rejected_canceled"

    asyncio.run(talk())


def test_a_workflow_waits_for_a_script(tmp_path: Path) -> None:
    from everstep import Runtime
    from everstep.scripts import runner as scripts

    async def work() -> str:
        async with Runtime(app, f"sqlite:///{tmp_path / 'store.db'}") as runtime:
            pulling = asyncio.create_task(scripts(runtime.client).serve())
            try:
                handle = await runtime.run(nightly, "echo got $1", id="n1")
                return str(await handle.result())
            finally:
                pulling.cancel()
                await asyncio.gather(pulling, return_exceptions=True)

    assert asyncio.run(work()) == "it said got first"


def test_it_survives_a_crash_at_every_point() -> None:
    """The workflow's side of it; the runner's is a promise that somebody settles."""
    survives(app, nightly, "echo x", result="it said x", settle={"{id}.1": "x"})
