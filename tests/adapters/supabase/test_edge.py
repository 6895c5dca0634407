"""Python inside the Edge Function: the countdown's template, by Pyodide under Deno, woken by pg_cron and pg_net."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import psycopg
import pytest

from everstep import App, Client
from everstep.cli.new import create
from everstep.errors import OutcomeUnknown, StoreUnavailable
from everstep.ports import Put
from everstep.testing.conformance.rows import commit, row
from everstep_supabase.edge import Edge, FetchStore
from tests.adapters.supabase.standins import SECRET, Background, PostgREST, token
from tests.adapters.supabase.test_loop import free_port, wait_for_port
from tests.components import requires_component
from tools.components import ROOT, deno, postgres, pyodide

pytestmark = pytest.mark.xdist_group("supabase")


class Running(NamedTuple):
    url: str
    log: Path


@pytest.fixture
def function(supabase_server: postgres.Server, project: str, tmp_path: Path) -> Iterator[Running]:
    """The template's function as a user has it, built and started."""
    binary, component = deno.find(), pyodide.find()
    requires_component("deno", hint=deno.HINT, present=binary is not None)
    requires_component("pyodide", hint=pyodide.HINT, present=component is not None)
    assert component is not None
    create("countdown", tmp_path / "mine", "supabase")
    folder = tmp_path / "mine/supabase/supabase/functions/everstep-python"
    python = tmp_path / "python"
    for package in (ROOT / "core/everstep", ROOT / "adapters/supabase/everstep_supabase"):
        shutil.copytree(package, python / package.name, ignore=shutil.ignore_patterns("__pycache__", "_templates"))
    shutil.copy(tmp_path / "mine/app.py", python)
    (folder / "build").mkdir()
    (folder / "build" / component.library.name).symlink_to(component.library)
    port, log = free_port(), tmp_path / "log"
    deno_run = [str(binary), "run", "--no-remote", "--config", str(component.config), "-A"]
    with PostgREST(f"postgresql://authenticator:authenticator@127.0.0.1:{supabase_server.port}/postgres") as api:
        env = {
            **os.environ,
            "DENO_NO_UPDATE_CHECK": "1",
            "EVERSTEP_EDGE_PORT": str(port),
            "EVERSTEP_SECRET": SECRET,
            "SUPABASE_URL": api.url,
            "SUPABASE_SERVICE_ROLE_KEY": token("service_role"),
        }
        subprocess.run([*deno_run, str(folder / "build.ts"), str(python)], env=env, check=True, timeout=120)
        with log.open("wb") as out:
            process = subprocess.Popen([*deno_run, str(folder / "index.ts")], env=env, stdout=out, stderr=out)
        try:
            wait_for_port(port, process)
            yield Running(f"http://127.0.0.1:{port}/everstep-python", log)
        finally:
            process.kill()
            process.wait()


def test_the_countdown_runs_inside_deno(project: str, function: Running) -> None:
    with psycopg.connect(project, autocommit=True) as connection:
        connection.execute("select vault.create_secret(%s, 'everstep_url')", (f"{function.url}/wake",))
        connection.execute("select vault.create_secret(%s, 'everstep_secret')", (SECRET,))

    def status(method: str, path: str, secret: str, content: str = "{}") -> int:
        headers = {"x-everstep-secret": secret}
        return httpx.request(
            method, f"{function.url}/{path}", headers=headers, content=content, trust_env=False, timeout=60
        ).status_code

    async def scenario() -> None:
        client = Client.open(project)
        handle = await client.options(id="c", target="everstep://countdown").start("countdown", 5, 0.05)
        async with asyncio.timeout(90):
            assert await handle.result() == "counted down from 5"
        await client.close()

    assert status("POST", "wake", SECRET[:-1]) == 401
    assert status("GET", "wake", SECRET) == 405
    assert status("POST", "promises", SECRET) == 404
    assert status("POST", "wake", SECRET, "nothing") == 400
    with Background(project, second=0.2):
        asyncio.run(scenario())
    said = Counter(function.log.read_text().splitlines())
    assert [said[line] for line in ("5", "4", "3", "2", "1", "Done")] == [1] * 6


def test_nothing_is_read_of_a_caller_who_does_not_know_the_secret() -> None:
    read: list[str] = []

    async def fetch(url: str, headers: str, body: str) -> str:
        raise AssertionError("nothing is asked for")

    def body(name: str) -> Callable[[], Awaitable[bytes]]:
        async def said() -> bytes:
            read.append(name)
            return b"nothing"

        return said

    async def scenario() -> None:
        edge = Edge(App("edge"), "https://project.example", "key", SECRET, fetch)
        assert json.loads(await edge("wake", SECRET[:-1], body("a stranger's")))[0] == 401
        assert json.loads(await edge("wake", SECRET, body("ours")))[0] == 400

    asyncio.run(scenario())
    assert read == ["ours"]


def test_a_fetch_that_fails_leaves_a_write_open() -> None:
    async def fails(url: str, headers: str, body: str) -> str:
        raise RuntimeError("TypeError: fetch failed")

    store = FetchStore("https://project.example", "key", fails)
    with pytest.raises(StoreUnavailable, match="fetch failed"):
        asyncio.run(store.load(["a"]))
    with pytest.raises(OutcomeUnknown, match="fetch failed"):
        asyncio.run(store.commit(commit(Put(row("a"), 0))))
