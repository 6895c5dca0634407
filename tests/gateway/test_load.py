"""Many who wait: 200 long-polls and 50 workers that pull, held by one development server, which rests meanwhile; and
traffic under which its memory stays flat.

EVERSTEP_SOAK_SECONDS=600 makes the traffic long (`make soak` does).
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from everstep.clock import NEVER
from everstep.protocol import VERSION
from tests.components import requires_component
from tests.gateway.support import Dev, dev

requires_component("httpx", hint="pip install -e '.[test]'")

import httpx  # noqa: E402

pytestmark = pytest.mark.xdist_group("gateway-load")
WAITING = 200
WORKERS = 50
SECONDS = float(os.environ.get("EVERSTEP_SOAK_SECONDS", "3"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Dev]:
    with dev(tmp_path) as running:
        yield running


@asynccontextmanager
async def calling(server: Dev) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=2 * WAITING + WORKERS + 50)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as http:
        yield http


async def ask(http: httpx.AsyncClient, kind: str, *, taken: bool = False, **data: Any) -> Any:
    """The answer's data; with `taken`, None for a task that somebody else has had: messages come at least once."""
    answer = await http.post("/", json={"kind": kind, "head": {"corrId": "c", "version": VERSION}, "data": data})
    if taken and answer.status_code == 409:
        return None
    assert answer.status_code in (200, 300), answer.text
    return answer.json()["data"]


def creation(id: str, target: str | None = None) -> dict[str, Any]:
    tags = {"resonate:target": target} if target else {"resonate:external": "true"}
    return {"id": id, "timeoutAt": NEVER, "param": {}, "tags": tags}


async def resolved(http: httpx.AsyncClient, id: str) -> None:
    """Wait for a promise, in as many long-polls as it takes."""
    while (await http.get(f"/promises/{id}?wait=50")).json()["state"] == "pending":
        pass


def cpu_seconds(server: Dev) -> float:
    """What the server's process has used of processors."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(server: Dev) -> int:
    """Its memory, in bytes."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def worker(http: httpx.AsyncClient, name: str, connected: asyncio.Semaphore, until: asyncio.Event) -> list[str]:
    """Pull, acquire and fulfil until told to stop; returns the ids of its tasks."""
    done: list[str] = []
    async with http.stream("GET", f"/poll/pool/{name}") as stream:
        assert stream.status_code == 200
        connected.release()
        lines = stream.aiter_lines()
        while not until.is_set():
            line = asyncio.ensure_future(anext(lines))
            stop = asyncio.ensure_future(until.wait())
            await asyncio.wait([line, stop], return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not line.done():
                line.cancel()
                await asyncio.gather(line, return_exceptions=True)
                break
            if not line.result().startswith("data: "):
                continue
            task = json.loads(line.result().removeprefix("data: "))["data"]["task"]
            if await ask(http, "task.acquire", taken=True, **task, pid=name, ttl=60_000) is None:
                continue
            value = {"id": task["id"], "state": "resolved", "value": {}}
            action = {"kind": "promise.settle", "head": {}, "data": value}
            await ask(http, "task.fulfill", id=task["id"], version=task["version"] + 1, action=action)
            done.append(task["id"])
    return done


@pytest.mark.skipif(SECONDS < 60, reason="250 connections and a share of a core want a machine at rest: make soak")
def test_two_hundred_wait_and_fifty_pull_and_the_server_rests_meanwhile(server: Dev) -> None:
    async def play() -> None:
        async with calling(server) as http:
            await asyncio.gather(*[ask(http, "promise.create", **creation(f"p{n}")) for n in range(WAITING)])
            waiting = [asyncio.create_task(resolved(http, f"p{n}")) for n in range(WAITING)]
            connected, until = asyncio.Semaphore(0), asyncio.Event()
            pulling = [asyncio.create_task(worker(http, f"w{n}", connected, until)) for n in range(WORKERS)]
            for _ in range(WORKERS):
                await connected.acquire()
            await asyncio.sleep(1)  # what beginning to wait costs is over
            before, began = cpu_seconds(server), time.monotonic()
            await asyncio.sleep(2)
            share = (cpu_seconds(server) - before) / (time.monotonic() - began)
            print(f"{WAITING} long-polls and {WORKERS} workers: {share:.1%} of a core")
            assert share < 0.25
            assert not any(one.done() for one in waiting)

            tasks = [f"t{n}" for n in range(2 * WORKERS)]
            await asyncio.gather(*[ask(http, "promise.create", **creation(id, "poll://any@pool")) for id in tasks])
            await asyncio.gather(*[resolved(http, id) for id in tasks])
            until.set()
            worked = await asyncio.gather(*pulling)
            assert sorted(id for done in worked for id in done) == sorted(tasks)
            assert all(worked), "everybody had something to do"

            settled = [{"id": f"p{n}", "state": "resolved", "value": {}} for n in range(WAITING)]
            await asyncio.gather(*[ask(http, "promise.settle", **one) for one in settled])
            await asyncio.gather(*waiting)

    asyncio.run(asyncio.wait_for(play(), 120))


def test_memory_stays_flat_under_traffic(server: Dev) -> None:
    async def play() -> None:
        async with calling(server) as http:
            connected, until = asyncio.Semaphore(0), asyncio.Event()
            pulling = [asyncio.create_task(worker(http, f"w{n}", connected, until)) for n in range(4)]
            for _ in pulling:
                await connected.acquire()
            sizes, made = [], 0
            ends = time.monotonic() + SECONDS
            while time.monotonic() < ends:
                ids = [f"r{made + n}" for n in range(20)]
                await asyncio.gather(*[ask(http, "promise.create", **creation(id, "poll://any@pool")) for id in ids])
                await asyncio.gather(*[resolved(http, id) for id in ids])
                made += len(ids)
                sizes.append(resident(server))
            until.set()
            await asyncio.gather(*pulling)
            settled = sizes[len(sizes) // 3]
            print(
                f"{made} tasks in {SECONDS:g} s; memory {settled >> 20} MiB after a third, {sizes[-1] >> 20} at the end"
            )
            assert sizes[-1] < settled * 1.15 + (8 << 20)

    asyncio.run(asyncio.wait_for(play(), SECONDS + 120))
