"""Several processes on one SQLite file lose nothing and double nothing, also when they are killed in the middle.

Each child says on its standard output what the store acknowledged, one line at a time; a line that was said must be in
the file, and the file must hold no more than was said plus one unacknowledged commit for each kill.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from everstep.ports import Put, Query
from everstep.rows import Row
from everstep.stores.sqlite import SqliteStore
from everstep.testing.conformance.rows import commit, row, write

PRELUDE = """
import asyncio, sys
from everstep.ports import Fence, Put
from everstep.stores.sqlite import SqliteStore
from everstep.testing.conformance.rows import commit, row
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = SqliteStore(path, synchronous="normal", timeout=60)
def say(line):
    print(line, flush=True)
say("ready")
"""

INCREMENT = """
async def main():
    left = count
    while left:
        now = await store.load(["sum", f"sum.{name}"])
        puts = []
        for id in ("sum", f"sum.{name}"):
            old = now.get(id)
            rev, value = (0, 0) if old is None else (old.rev, int(old.value))
            puts.append(Put(row(id, rev=rev + 1, value=str(value + 1)), rev))
        if await store.commit(commit(*puts)) is None:
            say("done")
            left -= 1
asyncio.run(main())
"""

CLAIM = """
sys.stdin.readline()
async def main():
    for n in range(count):
        if await store.commit(commit(Put(row(f"claim.{n}", value=name), 0))) is None:
            say(n)
asyncio.run(main())
"""

OPEN = """
sys.stdin.readline()
async def main():
    for n in range(count):
        new = SqliteStore(f"{path}.{n}", timeout=60)
        assert await new.commit(commit(Put(row(name), 0))) is None
        say("opened")
asyncio.run(main())
"""

STEPS = """
async def main():
    n = 0
    while True:
        task = (await store.load(["run"]))["run"]
        if task.state == "resolved":
            return
        fence = Fence("run", task.lease)
        while await store.commit(commit(Put(row(f"run.{name}-{n}", epoch=task.lease), 0), fence=fence)) is None:
            say(task.lease)
            n += 1
            assert n < count
asyncio.run(main())
"""


@contextmanager
def children(path: Path, code: str, names: list[str], count: int) -> Iterator[list[subprocess.Popen[str]]]:
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, path, name, str(count)], stdin=pipe, stdout=pipe, text=True
        )
        for name in names
    ]
    try:
        yield started
    finally:
        for child in started:
            if child.poll() is None:
                child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    stream.close()


def go(started: list[subprocess.Popen[str]]) -> None:
    """Let children that wait for a word begin together, once all are ready."""
    for child in started:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in started:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()


def said(child: subprocess.Popen[str]) -> list[str]:
    """What else a child acknowledged until its end; a line it could not finish was not said."""
    assert child.stdout is not None
    output = child.stdout.read()
    child.wait()
    return [line for line in output.split("\n")[:-1] if line != "ready"]


def hear(child: subprocess.Popen[str], lines: int) -> list[str]:
    assert child.stdout is not None
    heard = [child.stdout.readline().strip() for _ in range(lines)]
    return [line for line in heard if line and line != "ready"]


def contents(path: Path) -> dict[str, Row]:
    async def read_out() -> dict[str, Row]:
        store = SqliteStore(path)
        try:
            return {found.id: found for found in (await store.find(Query(limit=100_000))).rows}
        finally:
            await store.close()

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return asyncio.run(read_out())


def test_increments_of_four_processes_add_up_though_one_is_killed_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "everstep.db"
    acknowledged: Counter[str] = Counter()
    killed = 0
    with children(path, INCREMENT, ["p1", "p2", "p3"], 60) as steady:
        for victim in ("v1", "v2", "v1", "v1"):
            with children(path, INCREMENT, [victim], 1_000_000) as (child,):
                heard = hear(child, 12)
                child.send_signal(signal.SIGKILL)
                killed += 1
                acknowledged[victim] += len(heard) + len(said(child))
        for name, child in zip(("p1", "p2", "p3"), steady, strict=True):
            acknowledged[name] += len(said(child))
            assert child.returncode == 0
    rows = contents(path)
    counted = {id.removeprefix("sum."): int(found.value or "") for id, found in rows.items() if id != "sum"}
    total = int(rows["sum"].value or "")
    assert total == sum(counted.values())
    assert (counted["p1"], counted["p2"], counted["p3"]) == (60, 60, 60)
    for victim, kills in (("v1", 3), ("v2", 1)):
        assert acknowledged[victim] <= counted[victim] <= acknowledged[victim] + kills
    assert acknowledged.total() <= total <= acknowledged.total() + killed


def test_each_id_is_created_by_exactly_one_process(tmp_path: Path) -> None:
    path = tmp_path / "everstep.db"
    names = ["p1", "p2", "p3", "v1"]
    with children(path, CLAIM, names, 400) as started:
        go(started)
        victim = started[-1]
        claimed = {"v1": hear(victim, 8)}
        victim.send_signal(signal.SIGKILL)
        claimed["v1"] += said(victim)
        claimed |= {name: said(child) for name, child in zip(names[:-1], started, strict=False)}
    owners = {id.removeprefix("claim."): found.value for id, found in contents(path).items()}
    assert sorted(owners, key=int) == [str(n) for n in range(400)]
    for name in names[:-1]:
        assert sorted(claimed[name]) == sorted(n for n, owner in owners.items() if owner == name)
    unacknowledged = [n for n, owner in owners.items() if owner == "v1" and n not in claimed["v1"]]
    assert set(claimed["v1"]) <= {n for n, owner in owners.items() if owner == "v1"}
    assert len(unacknowledged) <= 1


def test_no_step_of_an_old_lease_is_written_after_a_takeover(tmp_path: Path) -> None:
    """Rules F1 and F2, with writers that never look whether they still hold the lease."""
    path = tmp_path / "everstep.db"

    async def take_over(store: SqliteStore, version: int) -> Counter[int | None]:
        task = (await store.load(["run"]))["run"]
        taken = task._replace(rev=task.rev + 1, lease=version or None, state="pending" if version else "resolved")
        assert await store.commit(commit(Put(taken, task.rev))) is None
        return Counter(found.epoch for found in await store.branch("run") if found.id != "run")

    async def scenario(started: list[subprocess.Popen[str]]) -> list[Counter[int | None]]:
        seen = []
        for version in (1, 2, 3, 4):
            for child in started:
                while hear(child, 1) != [str(version)]:
                    assert child.poll() is None
            seen.append(await take_over(store, version + 1 if version < 4 else 0))
        return seen

    store = SqliteStore(path, synchronous="normal", timeout=60)
    asyncio.run(write(store, row("run", lease=1)))
    with children(path, STEPS, ["p1", "p2"], 20_000) as started:
        seen = asyncio.run(scenario(started))
        for child in started:
            said(child)
            assert child.returncode == 0
    final = Counter(found.epoch for found in asyncio.run(store.branch("run")) if found.id != "run")
    for version, counts in zip((1, 2, 3, 4), seen, strict=True):
        assert counts[version] == final[version] > 0
    asyncio.run(store.close())


def test_new_files_can_be_opened_by_many_processes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "everstep.db"
    with children(path, OPEN, [f"p{n}" for n in range(4)], 40) as started:
        go(started)
        opened = [said(child) for child in started]
        assert [child.returncode for child in started] == [0] * 4
    assert opened == [["opened"] * 40] * 4
    assert len(contents(tmp_path / "everstep.db.7")) == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_the_file_anew(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "everstep.db", synchronous="normal")
    asyncio.run(write(store, row("a")))
    before = store._cursor().connection
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(write(store, row("b")))
            code = 0 if store._cursor().connection is not before else 2
            asyncio.run(store.close())
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert store._cursor().connection is before
    asyncio.run(write(store, row("c")))
    asyncio.run(store.close())
    assert sorted(contents(tmp_path / "everstep.db")) == ["a", "b", "c"]
