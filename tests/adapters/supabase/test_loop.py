"""The loop for real: Postgres, pg_cron and pg_net, the relay under Deno, the Python function in a process of its own.

And its parts dying: the function by SIGKILL at ten database calls, Postgres by immediate shutdown, pg_net's queue, the
worker. Every run ends, and no step whose record is written runs again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from everstep import App, Client, Context
from everstep.errors import PlatformError
from everstep.local import Runtime
from tests.adapters.supabase.conftest import migration
from tests.adapters.supabase.standins import SECRET, Background
from tests.components import requires_component
from tools.components import deno, postgres

pytestmark = pytest.mark.xdist_group("supabase-loop")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
RELAY = ROOT / "templates/countdown/supabase/supabase/functions/everstep/index.ts"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, f"it ended: {process.args}"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"nothing listens: {process.args}")


class Function:
    """The function's process, begun again whenever it dies, as a platform does."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self.log = folder / "notes.txt"
        env = {
            **os.environ,
            "EVERSTEP_TEST_DSN": dsn,
            "EVERSTEP_TEST_LOG": str(self.log),
            "EVERSTEP_SECRET": SECRET,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        }
        command = [sys.executable, "-m", "tests.adapters.supabase.loop_app", str(self.port), str(folder)]
        self._process = subprocess.Popen(command, env=env, cwd=ROOT, start_new_session=True)
        wait_for_port(self.port, self._process)

    @property
    def deaths(self) -> int:
        told = self._folder / "deaths"
        return len(told.read_text()) if told.exists() else 0

    def kill(self, *then_at: int) -> None:
        """SIGKILL now; the processes after it die at these database calls."""
        (self._folder / "die_at").write_text(" ".join(str(at) for at in then_at))
        os.kill(int((self._folder / "pid").read_text()), signal.SIGKILL)

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def notes(self, id: str) -> Counter[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return Counter(line for line in lines if line.startswith(f"{id} "))


class Project:
    def __init__(self, server: postgres.Server, function: Function, relay: str) -> None:
        self.server, self.function, self.relay = server, function, relay
        self.dsn = server.dsn

    def sql(self, statement: str, parameters: Any = None) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement.encode(), parameters)

    async def results(self, runs: dict[str, tuple[str, tuple[Any, ...]]], seconds: float = 60) -> dict[str, Any]:
        """Start runs and wait for their results, whatever the database does meanwhile."""
        client = Client.open(self.dsn)
        handles = {}
        for id, (name, args) in runs.items():
            handles[id] = await client.options(id=id, target="everstep://loop").start(name, *args)
        found = {}
        async with asyncio.timeout(seconds):
            for id in handles:
                found[id] = await self.result(client, id)
        await client.close()
        return found

    async def result(self, client: Client, id: str) -> Any:
        while True:
            try:
                return await client.handle(id).result()
            except PlatformError:
                await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    requires_component("postgres", hint=postgres.HINT, present=postgres.find() is not None)
    requires_component("uvicorn", hint="pip install -e '.[test]'")
    binary = deno.find()
    requires_component("deno", hint=deno.HINT, present=binary is not None)
    port = free_port()
    url = f"http://127.0.0.1:{port}/everstep"
    with postgres.Server(settings={"fsync": "off"}) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute((HERE / "standins.sql").read_bytes())
            connection.execute(migration())
            connection.execute("select vault.create_secret(%s, 'everstep_url')", (f"{url}/wake",))
            connection.execute("select vault.create_secret(%s, 'everstep_secret')", (SECRET,))
            # A call that died with the function is repeated after 2 seconds here, not after 30.
            connection.execute("select cron.schedule('everstep', '1 second', 'select everstep.ring(2000)')")
            headers = json.dumps({"Content-Type": "application/json", "x-everstep-secret": SECRET})
            connection.execute("create table users (id int primary key, mail text)")
            connection.execute(
                "create trigger onboard after insert or update on users for each row execute function"
                f" supabase_functions.http_request('{url}/webhook', 'POST', '{headers}', '{{}}', '5000')".encode()
            )
        function = Function(server.dsn, tmp_path_factory.mktemp("loop"))
        env = {
            **os.environ,
            "EVERSTEP_TARGET": f"http://127.0.0.1:{function.port}",
            "EVERSTEP_SECRET": SECRET,
            "EVERSTEP_RELAY_PORT": str(port),
            "DENO_NO_UPDATE_CHECK": "1",
        }
        command = [str(binary), "run", "--no-remote", "--allow-net=127.0.0.1", "--allow-env", str(RELAY)]
        relay = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        try:
            wait_for_port(port, relay)
            with Background(server.dsn, second=0.2):
                yield Project(server, function, url)
        finally:
            relay.kill()
            relay.wait()
            function.close()


def test_every_kind_of_run_goes_round_the_loop(project: Project) -> None:
    runs = {
        "c": ("countdown", (5,)),
        "f": ("failing", ()),
        "fan": ("fan", (25,)),
    }
    found = asyncio.run(project.results(runs))
    assert found == {"c": [f"c {n}" for n in (5, 4, 3, 2, 1)], "f": "f fails", "fan": 300}
    assert set(project.function.notes("c").values()) == {1}
    assert project.function.notes("f") == {"f fails": 3}


def test_an_approval_is_given_over_http(project: Project) -> None:
    async def scenario() -> None:
        headers = {"authorization": "Bearer token"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{project.function.port}", headers=headers) as http:
            assert (await http.post("/workflows/approval", json={"id": "a"})).status_code == 202
            async with asyncio.timeout(30):
                while (await http.get("/promises/a.1")).status_code == 404:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert (await http.post("/promises/a.1/resolve", json={"value": "yes"})).status_code == 200
            answer = await http.get("/promises/a?wait=30", timeout=40)
            assert answer.json()["value"] == "yes"
        assert project.function.notes("a") == {"a mail": 1}

    asyncio.run(scenario())


def test_an_insert_is_onboarded_through_the_webhook(project: Project) -> None:
    project.sql("insert into users values (7, 'ada@example.org')")
    project.sql("update users set mail = 'ada@example.com'")

    async def scenario() -> None:
        client = Client.open(project.dsn)
        async with asyncio.timeout(30):
            while "onboard-7" not in await client.store.load(["onboard-7"]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert await project.result(client, "onboard-7") == "ws_7"
        await client.close()

    asyncio.run(scenario())
    assert set(project.function.notes("onboard-7").values()) == {1}


@pytest.mark.parametrize(
    ("secret", "method", "status"),
    [("wrong", "POST", 401), ("", "POST", 401), (SECRET, "GET", 405), (SECRET, "POST", 200)],
)
def test_the_relay_lets_in_only_who_has_the_secret(project: Project, secret: str, method: str, status: int) -> None:
    answer = httpx.request(
        method,
        f"{project.relay}/wake",
        content=b'{"id": "nobody", "version": 0}',
        headers={"x-everstep-secret": secret},
    )
    assert answer.status_code == status


def test_the_function_killed_at_ten_database_calls(project: Project) -> None:
    function = project.function
    before = function.deaths
    runs = {f"k{n}": ("countdown", (6,)) for n in range(4)} | {"kfan": ("fan", (10,))}

    async def scenario() -> dict[str, Any]:
        function.kill(5, 8, 11, 2, 7, 4, 9, 6, 3, 10)
        return await project.results(runs, 120)

    found = asyncio.run(scenario())
    assert found["kfan"] == 45
    for n in range(4):
        assert found[f"k{n}"] == [f"k{n} {left}" for left in range(6, 0, -1)]
    # The first death is from outside; a step may run again only for a death that hit it.
    assert function.deaths - before == 11
    doubled = sum(times - 1 for n in range(4) for times in function.notes(f"k{n}").values())
    assert doubled <= function.deaths - before


def test_postgres_shut_down_at_once_and_its_queues_emptied(project: Project) -> None:
    runs = {f"p{n}": ("countdown", (6, 0.3)) for n in range(3)}

    async def scenario() -> dict[str, Any]:
        waiting = asyncio.create_task(project.results(runs, 120))
        for _ in range(2):
            await asyncio.sleep(0.8)
            await asyncio.to_thread(project.server.crash)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(project.server.start)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(project.sql, "truncate net.http_request_queue, everstep.bells")
        return await waiting

    found = asyncio.run(scenario())
    for n in range(3):
        assert found[f"p{n}"] == [f"p{n} {left}" for left in (6, 5, 4, 3, 2, 1)]
        # A step whose commit the crash swallowed, or whose answer, runs again: at most one for each crash.
        assert sum(times - 1 for times in project.function.notes(f"p{n}").values()) <= 2


EMPTIES = """
create sequence net.asked;
create function net.empty_it() returns trigger language plpgsql security definer as $$
begin
    if nextval('net.asked') <= 6 and currval('net.asked') % 3 > 0 then
        delete from net.http_request_queue;
    end if;
    return null;
end $$;
create trigger empty_it after insert on net.http_request_queue for each statement execute function net.empty_it();
"""
"""Two calls of three are gone before anything could send them, and whatever waits beside them: four times in all."""


def test_the_queue_of_pg_net_emptied_again_and_again(project: Project) -> None:
    """Most calls never leave: the row that is due stays due, and the bell rings for it again."""
    runs = {f"e{n}": ("countdown", (4, 0.2)) for n in range(4)}
    project.sql(EMPTIES)
    try:
        found = asyncio.run(project.results(runs, 90))
        with psycopg.connect(project.dsn, autocommit=True) as connection:
            assert connection.execute("select last_value > 6 from net.asked").fetchone() == (True,)
    finally:
        project.sql("drop function net.empty_it() cascade; drop sequence net.asked")
    for id in runs:
        assert found[id] == [f"{id} {left}" for left in (4, 3, 2, 1)]
        assert set(project.function.notes(id).values()) == {1}


def test_a_worker_loop_goes_on_when_postgres_was_shut_down_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    requires_component("postgres", hint=postgres.HINT, present=postgres.find() is not None)
    monkeypatch.setattr("everstep.local.LEASE", 2000)
    ran: Counter[str] = Counter()
    app = App("survivor")

    @app.step
    def note(what: str) -> str:
        ran[what] += 1
        return what

    @app.workflow
    async def countdown(ctx: Context, n: int) -> list[str]:
        said = []
        for left in range(n, 0, -1):
            said.append(await ctx.run(note, f"{ctx.id} {left}"))
            await ctx.sleep(0.2)
        return said

    async def scenario(server: postgres.Server) -> list[Any]:
        async with Runtime(app, server.dsn) as runtime:
            serving = asyncio.create_task(runtime.serve())
            handles = [await runtime.client.start(countdown, 5, id=f"s{n}") for n in range(3)]
            for _ in range(2):
                await asyncio.sleep(0.3)
                await asyncio.to_thread(server.crash)
                await asyncio.to_thread(server.start)
            async with asyncio.timeout(90):
                found = [await patiently(handle) for handle in handles]
            assert not serving.done()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            return found

    with postgres.Server(settings={"fsync": "off"}) as server:
        found = asyncio.run(scenario(server))
    assert found == [[f"s{n} {left}" for left in (5, 4, 3, 2, 1)] for n in range(3)]
    # A step whose commit a crash swallowed, or whose answer, runs again: of each run at most one for each crash.
    assert sum(times - 1 for times in ran.values()) <= 6


async def patiently(handle: Any) -> Any:
    while True:
        try:
            return await handle.result()
        except PlatformError:
            await asyncio.sleep(0.1)


def test_a_killed_worker_is_taken_over_by_another(tmp_path: Path) -> None:
    """Plain Postgres: two `everstep dev`-like processes on one database, one of them killed in mid-run."""
    program = (
        "import asyncio, sys\n"
        "from everstep import Runtime\n"
        "import everstep.local\n"
        "everstep.local.LEASE = 2000\n"
        "from tests.adapters.supabase.loop_app import app\n"
        "async def main():\n"
        "    async with Runtime(app, sys.argv[1]) as runtime:\n"
        "        await runtime.serve()\n"
        "asyncio.run(main())\n"
    )
    env = {
        **os.environ,
        "EVERSTEP_TEST_LOG": str(tmp_path / "notes.txt"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    requires_component("postgres", hint=postgres.HINT, present=postgres.find() is not None)
    with postgres.Server(settings={"fsync": "off"}) as server:

        def worker() -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, "-c", program, server.dsn], env=env, cwd=ROOT)

        async def scenario() -> list[Any]:
            client = Client.open(server.dsn)
            workers = [worker(), worker()]
            try:
                handles = [
                    await client.options(id=f"w{n}", target="everstep://loop").start("countdown", 8, 0.1)
                    for n in range(6)
                ]
                async with asyncio.timeout(90):
                    while not (tmp_path / "notes.txt").exists():  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                    await asyncio.sleep(0.3)
                    workers[0].kill()
                    return [await handle.result() for handle in handles]
            finally:
                for one in workers:
                    one.kill()
                    one.wait()
                await client.close()

        found = asyncio.run(scenario())
        assert found == [[f"w{n} {left}" for left in range(8, 0, -1)] for n in range(6)]
        notes = Counter((tmp_path / "notes.txt").read_text().splitlines())
        assert sum(times - 1 for times in notes.values()) <= 6
