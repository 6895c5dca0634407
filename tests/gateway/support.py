"""`everstep dev` in a process of its own, and workers of the official SDKs that talk to it."""

from __future__ import annotations

import itertools
import json
import os
import queue
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from everstep.protocol import VERSION
from tests.components import requires_component
from tools.components import resonate_sdk

PROGRAMS = Path(__file__).parent / "programs"
PATIENCE = 60.0

APP = """
from datetime import timedelta
from everstep import App, Context

app = App("shop")

@app.step
def price(item: str) -> int:
    return len(item) * 100

@app.workflow
async def quote(ctx: Context, item: str, count: int = 1) -> dict:
    return {"item": item, "cents": count * await ctx.run(price, item)}

@app.workflow
async def strict(ctx: Context, item: str) -> None:
    raise LookupError(f"no {item}")

@app.workflow
async def calls(ctx: Context, name: str, *args: object, group: str = "ts") -> object:
    return await ctx.options(target=f"poll://any@{group}").rpc(name, *args)

@app.workflow
async def catches(ctx: Context, name: str, *args: object, group: str = "ts") -> list:
    try:
        await ctx.options(target=f"poll://any@{group}").rpc(name, *args)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return []

@app.workflow
async def fan(ctx: Context, count: int) -> list:
    import asyncio
    ts = ctx.options(target="poll://any@ts")
    return await asyncio.gather(*[ts.rpc("greet", str(n)) for n in range(count)])
"""


def sdks() -> resonate_sdk.Sdks:
    """The installed SDKs; skips where there are none."""
    found = resonate_sdk.find()
    requires_component("resonate_sdk", present=found is not None, hint=resonate_sdk.HINT)
    assert found is not None
    return found


class Dev:
    """A development server in a process of its own, at the address it printed."""

    program: tuple[str, ...] = ("-m", "everstep.cli")

    def __init__(self, folder: Path, *options: str, store: str = "sqlite:///shop.db", **environment: str) -> None:
        self.folder = folder
        self.store = store
        (folder / "shop.py").write_text(APP)
        self.options = options
        self.environment = environment
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, *self.program, "dev", "shop:app", "--store", self.store, "--quiet"]
        env = {**os.environ, **self.environment}
        env.pop("EVERSTEP_TOKEN", None)
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), *self.options],
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        match = re.fullmatch(r"Everstep serves shop on (http://127\.0\.0\.1:(\d+))/\n", first)
        assert match is not None, first + self.process.stderr.read()
        self.url, self.port = match[1], int(match[2])

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    def ask(self, kind: str, **data: Any) -> Any:
        """A request of the protocol."""
        return self.post("/", {"kind": kind, "head": {"corrId": "t", "version": VERSION}, "data": data})

    def settled(self, id: str) -> Any:
        return self.get(f"/promises/{id}?wait={PATIENCE:g}")


@contextmanager
def dev(folder: Path, *options: str, store: str = "sqlite:///shop.db", **environment: str) -> Iterator[Dev]:
    server = Dev(folder, *options, store=store, **environment)
    try:
        yield server
    finally:
        server.kill()


class Failed(Exception):
    """What a worker said went wrong."""


class Worker:
    """A process of an official SDK: a worker of a group, and a client that does what it is told. `address` is where
    messages are pushed to, if they are."""

    def __init__(self, command: list[str], cwd: Path, env: Mapping[str, str], notes: Path) -> None:
        self.notes_file = notes
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._numbers = itertools.count()
        self._answers: dict[int, queue.Queue[Any]] = {}
        self._said: list[str] = []
        self._ready: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._hear, daemon=True).start()
        try:
            self.address = str(self._ready.get(timeout=PATIENCE).get("address") or "")
        except queue.Empty:
            raise AssertionError("".join(self._said)) from None

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                self._said.append(line)
                continue
            (self._ready if "ready" in said else self._answers[said["n"]]).put(said)

    def _hear(self) -> None:
        assert self.process.stderr is not None
        self._said.extend(self.process.stderr)

    def tell(self, op: str, id: str = "", **rest: Any) -> Callable[[], Any]:
        """Give a command; call what is returned for its value."""
        number = next(self._numbers)
        answers: queue.Queue[Any] = queue.Queue()
        self._answers[number] = answers
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"n": number, "op": op, "id": id, **rest}) + "\n")
        self.process.stdin.flush()

        def value() -> Any:
            try:
                said = answers.get(timeout=PATIENCE)
            except queue.Empty:
                raise AssertionError(f"{op} {id}: no answer; {''.join(self._said)[-3000:]}") from None
            if "error" in said:
                raise Failed(f"{said.get('name')}: {said['error']}")
            return said["value"]

        return value

    def run(self, id: str, name: str, *args: Any) -> Any:
        return self.tell("run", id, name=name, args=args)()

    def rpc(self, id: str, name: str, *args: Any, target: str | None = None) -> Any:
        return self.tell("rpc", id, name=name, args=args, target=target)()

    def notes(self) -> list[str]:
        return self.notes_file.read_text().splitlines() if self.notes_file.exists() else []

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def said(self) -> str:
        return "".join(self._said)


def until(condition: Callable[[], object], worker: Worker) -> None:
    """Wait for another process; the suite's own limit ends it, and so does the worker's death."""
    while not condition():
        assert worker.process.poll() is None, worker.said[-3000:]
        worker.tell("pause")()


@contextmanager
def typescript(
    server: Dev, pid: str, group: str = "ts", *, program: str = "worker.mjs", **env: str
) -> Iterator[Worker]:
    """A worker of the TypeScript SDK."""
    found = sdks()
    folder = server.folder / f"node-{pid}"
    if not folder.exists():
        folder.mkdir()
        (folder / "node_modules").symlink_to(found.modules / "node_modules")
        (folder / program).write_text((PROGRAMS / program).read_text())
    notes = server.folder / "notes.txt"
    given = {"GATEWAY": server.url, "GROUP": group, "PID_NAME": pid, "NOTES": str(notes), **env}
    worker = Worker([str(found.node), program], folder, given, notes)
    try:
        yield worker
    finally:
        worker.kill()


@contextmanager
def python(server: Dev, pid: str, group: str = "py", **env: str) -> Iterator[Worker]:
    """A worker of the Python SDK."""
    found = sdks()
    notes = server.folder / "notes.txt"
    given = {"GATEWAY": server.url, "GROUP": group, "PID_NAME": pid, "NOTES": str(notes), "PYTHONPATH": "", **env}
    worker = Worker([str(found.python), str(PROGRAMS / "worker.py")], server.folder, given, notes)
    try:
        yield worker
    finally:
        worker.kill()


def scheduled(server: Dev, worker: Worker, headers: Mapping[str, str] | None = None) -> None:
    """A schedule of the worker's fires until it is deleted."""
    worker.tell("schedule", "every", cron="* * * * * *", name="greet", args=["cron"])()
    until(lambda: any(note.startswith("greet cron") for note in worker.notes()), worker)
    worker.tell("unschedule", "every")()
    asked = urllib.request.Request(server.url + "/schedules", headers=dict(headers or {}))
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
        assert json.load(answer)["schedules"] == []


def survives(server: Dev, worker: Worker, start: Callable[..., AbstractContextManager[Worker]], **env: str) -> None:
    """A worker that dies within a run is replaced, and nothing that it finished runs again."""

    def ticks() -> list[str]:
        return [note.split()[1] for note in worker.notes() if note.startswith("tick")]

    with start(server, "k1", "kill", TTL="500", PAUSE="60" if start is typescript else "0.06", **env) as first:
        target = first.address or "kill"
        answer = worker.tell("rpc", "k1", name="slow", args=[6], target=target)
        until(lambda: len(ticks()) >= 3, worker)
        first.kill()
    before = ticks()
    port = {"PORT": str(urlsplit(first.address).port)} if first.address else {}
    with start(server, "k2", "kill", **env, **port):
        assert answer() == 6
    under_way = before[-1]  # when its worker died
    assert not (set(before) - {under_way}) & set(ticks()[len(before) :])
    assert set(ticks()) == {"0", "1", "2", "3", "4", "5"}
