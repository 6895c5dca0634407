"""Many who wait: 200 long-polls and 50 workers that pull, held by one development server, which rests meanwhile; and
traffic under which its memory stays flat.

EVERSTEP_SOAK_SECONDS=600 makes the traffic long (`make soak` does).
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
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


TLS = ssl.create_default_context()
"""Unused, and slow to make for each client."""


@asynccontextmanager
async def calling(server: Dev) -> AsyncIterator[httpx.AsyncClient]:
    """A caller with connections of its own: hundreds in one pool of httpx keep its loop busy for seconds at a time."""
    transport = httpx.AsyncHTTPTransport(verify=TLS)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, transport=transport) as http:
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


async def each(calls: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Twenty at a time."""
    calls = iter(calls)
    while batch := list(islice(calls, 20)):
        await asyncio.gather(*batch)


class Worker:
    """Pulls, acquires and fulfils until told to stop; `done` are the ids of its tasks, `heard` set by its first one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.connected = asyncio.Event()
        self.heard = asyncio.Event()
        self.done: list[str] = []

    async def work(self, server: Dev) -> None:
        async with calling(server) as http, http.stream("GET", f"/poll/pool/{self.name}") as stream:
            assert stream.status_code == 200
            self.connected.set()
            async for line in stream.aiter_lines():
                if not line.startswith("data: "):
                    continue
                self.heard.set()
                task = json.loads(line.removeprefix("data: "))["data"]["task"]
                if await ask(http, "task.acquire", taken=True, **task, pid=self.name, ttl=60_000) is None:
                    continue
                value = {"id": task["id"], "state": "resolved", "value": {}}
                action = {"kind": "promise.settle", "head": {}, "data": value}
                await ask(http, "task.fulfill", id=task["id"], version=task["version"] + 1, action=action)
                self.done.append(task["id"])


@asynccontextmanager
async def pulling(server: Dev, count: int) -> AsyncIterator[list[Worker]]:
    workers = [Worker(f"w{n}") for n in range(count)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.work(server)) for one in workers]
        for one in workers:
            await one.connected.wait()
        yield workers
        for task in tasks:
            task.cancel()


async def at_rest(server: Dev) -> float:
    """Wait until it does next to nothing for a second; returns the share of a core that this was."""
    while True:
        before, began = cpu_seconds(server), time.monotonic()
        await asyncio.sleep(1)
        share = (cpu_seconds(server) - before) / (time.monotonic() - began)
        if share < 0.1:
            return share


def test_two_hundred_wait_and_fifty_pull_and_the_server_rests_meanwhile(server: Dev) -> None:
    async def play() -> None:
        async with calling(server) as http:
            await each(ask(http, "promise.create", **creation(f"p{n}")) for n in range(WAITING))

            async def wait(id: str) -> None:
                async with calling(server) as mine:
                    await resolved(mine, id)

            async with asyncio.TaskGroup() as group, pulling(server, WORKERS) as workers:
                waiting = [group.create_task(wait(f"p{n}")) for n in range(WAITING)]
                print(f"{WAITING} long-polls and {WORKERS} workers: {await at_rest(server):.1%} of a core")
                assert not any(one.done() for one in waiting)

                tasks = [f"t{n}" for n in range(2 * WORKERS)]
                await each(ask(http, "promise.create", **creation(id, "poll://any@pool")) for id in tasks)
                await each(resolved(http, id) for id in tasks)
                for one in workers:
                    await one.heard.wait()  # they are offered work in turn
                assert sorted(id for one in workers for id in one.done) == sorted(tasks)

                settled: list[dict[str, Any]] = [
                    {"id": f"p{n}", "state": "resolved", "value": {}} for n in range(WAITING)
                ]
                await each(ask(http, "promise.settle", **one) for one in settled)
                await asyncio.gather(*waiting)

    asyncio.run(asyncio.wait_for(play(), 120))


def test_a_connection_that_rested_is_still_answered(server: Dev) -> None:
    """Clients keep theirs for about five seconds, and a busy one looks late."""

    async def play() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)

        async def status() -> bytes:
            writer.write(b"GET /promises/nobody HTTP/1.1\r\nhost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            return head.split()[1]

        assert await status() == b"404"
        await asyncio.sleep(6)
        assert await status() == b"404"
        writer.close()

    asyncio.run(asyncio.wait_for(play(), 60))


def test_memory_stays_flat_under_traffic(server: Dev) -> None:
    async def play() -> None:
        async with calling(server) as http, pulling(server, 4):
            sizes, made = [], 0
            ends = time.monotonic() + SECONDS
            while time.monotonic() < ends:
                ids = [f"r{made + n}" for n in range(20)]
                await asyncio.gather(*[ask(http, "promise.create", **creation(id, "poll://any@pool")) for id in ids])
                await asyncio.gather(*[resolved(http, id) for id in ids])
                made += len(ids)
                sizes.append(resident(server))
            settled = sizes[len(sizes) // 3]
            shown = ", ".join(f"{size >> 20}" for size in (sizes[0], settled, sizes[-1]))
            print(f"{made} tasks in {SECONDS:g} s; memory in MiB at first, after a third, at the end: {shown}")
            assert sizes[-1] < settled * 1.15 + (8 << 20)

    asyncio.run(asyncio.wait_for(play(), SECONDS + 120))
