"""System 42, on-premise FaaS routing: a script goes to a kind of machine, and to whichever of that kind is there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from everstep import App, Client, Context, Retry, Runtime
from everstep.scripts import ScriptFailed
from tests.systems.scaffold import ROOT, run_process, survives

app = App("router", retry=Retry(attempts=1))

Machine = Literal["gpu", "cpu"]


@app.workflow
async def submit(ctx: Context, machine: Machine, script: str) -> str:
    """Run a script on a machine of a kind, and wait for it."""
    return await ctx.options(target=f"bash://{machine}").rpc("script", script)  # type: ignore[no-any-return]


@app.workflow
async def submit_and_leave(ctx: Context, machine: Machine, script: str) -> str:
    """The same without waiting: the answer is the id to fetch the result by."""
    return await ctx.options(target=f"bash://{machine}").detached("script", script)  # type: ignore[no-any-return]


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}"


@contextlib.contextmanager
def machine(folder: Path, kind: Machine, name: str, lease: float = 60) -> Iterator[subprocess.Popen[bytes]]:
    """A machine without an address: it fetches its work. Switched off in the end, whatever it does."""
    words = ("bash", "--group", kind, "--store", url(folder), "--lease", str(lease), "--concurrency", "2")
    child = subprocess.Popen(
        [sys.executable, "-m", "everstep.cli", *words, "--env", f"WORKER={name}", "--env", f"OUTSIDE={folder}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def routed(folder: Path, talk: Callable[[Client], Awaitable[Any]]) -> Any:
    """A conversation with a router at work."""

    async def run() -> Any:
        async with Runtime(app, url(folder)) as runtime:
            work = asyncio.create_task(runtime.serve())
            try:
                return await talk(runtime.client)
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    return asyncio.run(run())


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def lines(folder: Path) -> list[str]:
    """Who has begun what, in order."""
    path = folder / "begun"
    return path.read_text().splitlines() if path.exists() else []


WHO = 'echo "$WORKER $EVERSTEP_ID" >> "$OUTSIDE/begun"; echo "$WORKER"'
HELD = (
    'echo "$WORKER $EVERSTEP_ID" >> "$OUTSIDE/begun"; while [ -e "$OUTSIDE/hold" ]; do sleep 0.02; done; echo "$WORKER"'
)


def test_a_job_runs_on_a_machine_of_its_kind_alone(tmp_path: Path) -> None:
    async def talk(client: Client) -> dict[str, list[str]]:
        handles = {
            kind: [await client.start(submit, kind, WHO, id=f"{kind}-job-{number}") for number in range(6)]
            for kind in ("gpu", "cpu")
        }
        return {kind: [await handle.result(60) for handle in started] for kind, started in handles.items()}

    with machine(tmp_path, "gpu", "gpu-1"), machine(tmp_path, "gpu", "gpu-2"), machine(tmp_path, "cpu", "cpu-1"):
        ran = routed(tmp_path, talk)

    assert set(ran["gpu"]) <= {"gpu-1", "gpu-2"}
    assert set(ran["cpu"]) == {"cpu-1"}
    assert len(lines(tmp_path)) == 12, "each job once"


def test_without_waiting_the_answer_is_the_id_and_the_result_comes_later(tmp_path: Path) -> None:
    (tmp_path / "hold").touch()

    async def talk(client: Client) -> str:
        id = await (await client.start(submit_and_leave, "gpu", HELD, id="job")).result(60)
        early = await client.get(id)
        assert (early.state, early.value) == ("pending", None)
        (tmp_path / "hold").unlink()
        return str((await client.wait(id, 60)).value)

    with machine(tmp_path, "gpu", "gpu-1"):
        assert routed(tmp_path, talk) == "gpu-1"


def test_the_job_finishes_without_the_router(tmp_path: Path) -> None:
    assert run_process(__name__, "submit", "gpu", WHO, id="job", folder=tmp_path, kill_at=("suspended", 1)).killed

    async def finished() -> Any:
        async with Client.open(url(tmp_path), app=app) as client:
            return (await client.wait("job.1", 60)).value, (await client.get("job")).state

    with machine(tmp_path, "gpu", "gpu-1"):
        assert asyncio.run(finished()) == ("gpu-1", "pending")
    assert run_process(__name__, "submit", "gpu", WHO, id="job", folder=tmp_path).result == "gpu-1"
    assert lines(tmp_path) == ["gpu-1 job.1"]


def test_the_job_of_a_machine_that_dies_moves_to_another_of_its_kind(tmp_path: Path) -> None:
    (tmp_path / "hold").touch()

    async def talk(client: Client) -> str:
        with machine(tmp_path, "cpu", "cpu-1"), machine(tmp_path, "gpu", "gpu-1", 4) as first:
            handle = await client.start(submit, "gpu", HELD, id="job")
            await until(lambda: len(lines(tmp_path)) == 1)
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
            with machine(tmp_path, "gpu", "gpu-2"):
                await until(lambda: len(lines(tmp_path)) == 2)
                (tmp_path / "hold").unlink()
                return str(await handle.result(60))

    assert routed(tmp_path, talk) == "gpu-2"
    assert lines(tmp_path) == ["gpu-1 job.1", "gpu-2 job.1"]


def test_what_a_script_says_when_it_fails_is_the_error_and_it_is_not_tried_again(tmp_path: Path) -> None:
    async def talk(client: Client) -> None:
        handle = await client.start(submit, "gpu", f"{WHO}; echo 'out of memory' >&2; exit 9", id="job")
        with pytest.raises(ScriptFailed, match="out of memory") as caught:
            await handle.result(60)
        assert caught.value.code == 9

    with machine(tmp_path, "gpu", "gpu-1"):
        routed(tmp_path, talk)

    assert lines(tmp_path) == ["gpu-1 job.1"]


def test_it_survives_a_crash_at_every_point() -> None:
    survives(app, submit, "gpu", WHO, result="gpu-1", settle={"{id}.1": "gpu-1"})
