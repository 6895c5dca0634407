"""`everstep dev`: the runtime, the HTTP API and the page in one process that starts at once and goes down cleanly."""

from __future__ import annotations

import gc
import io
import json
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.components import requires_component
from tests.core.cli_support import Cli, make_cli

requires_component("uvicorn", hint="pip install -e '.[test]'")

from rich.console import Console  # noqa: E402

from everstep.cli.serve import EventLog  # noqa: E402
from everstep.local import Event  # noqa: E402


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return make_cli(tmp_path, monkeypatch, capsys)


class Server:
    """A development server in a process of its own, at the address it printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        first = process.stderr.readline()
        match = re.fullmatch(r"Everstep serves shop on (http://127\.0\.0\.1:(\d+)/)\n", first)
        assert match is not None, first + process.stderr.read()
        self.url, self.port = match[1], int(match[2])

    def ask(self, path: str, body: Any = None, **headers: str) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json", **headers})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture
def server(cli: Cli) -> Iterator[Server]:
    process = cli.process("dev", cli.app, "--port", "0")
    try:
        yield Server(process)
    finally:
        process.kill()
        process.communicate(timeout=20)


def test_a_run_started_over_http_is_carried_out_and_settled_from_another_process(cli: Cli, server: Server) -> None:
    server.ask("workflows/order", {"id": "o1", "args": ["o-1"]})
    assert server.ask("promises/o1?wait=0")["state"] == "pending"
    while "o1.2" not in server.ask("promises/o1?wait=0.05")["waiting_for"]:
        continue
    cli("resolve", "o1.2", "true")

    assert server.ask("promises/o1?wait=20")["value"] == "shipped"
    assert cli.notes() == ["o-1"]


def test_a_start_by_another_process_is_carried_out(cli: Cli, server: Server) -> None:
    cli("start", cli.app, "countdown", "2", "--id", "c1")

    assert server.ask("promises/c1?wait=20")["value"] == "liftoff"
    assert cli.notes() == ["2", "1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_with_connections_open_and_runs_under_way(
    cli: Cli, server: Server, number: signal.Signals
) -> None:
    server.ask("workflows/order", {"id": "o1", "args": ["o-1"]})
    with urllib.request.urlopen(server.url + "events?run=o1", timeout=30) as stream:
        assert stream.readline() == b"retry: 2000\n"
        server.process.send_signal(number)
        _, err = server.process.communicate(timeout=20)

    assert server.process.returncode == 0
    assert err.endswith("stopped; every run is kept\n")
    assert "Traceback" not in err
    cli("verify")


def test_killed_and_started_again_it_goes_on(cli: Cli) -> None:
    first = Server(cli.process("dev", cli.app, "--port", "0"))
    first.ask("workflows/countdown", {"id": "c1", "args": [3], "kwargs": {"pause": 0.3}})
    while not cli.notes():
        first.ask("promises/c1?wait=0.05")
    first.process.kill()
    first.process.communicate(timeout=20)
    second = Server(cli.process("dev", cli.app, "--port", "0"))
    try:
        assert second.ask("promises/c1?wait=20")["value"] == "liftoff"
    finally:
        second.process.kill()
        second.process.communicate(timeout=20)
    assert [*dict.fromkeys(cli.notes())] == ["3", "2", "1"]


def test_on_this_machine_alone_only_its_own_names_are_served(server: Server) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.ask("promises", Host="evil.example")
    assert caught.value.code == 403
    assert server.ask("promises", Host="localhost")["promises"] == []


def test_a_port_that_is_taken_is_named(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} is taken" in cli("dev", cli.app, "--port", str(port), code=2).err


def test_mcp_finds_the_port_taken_before_it_begins(cli: Cli) -> None:
    requires_component("mcp", hint="pip install -e '.[test]'")
    with socket.create_server(("127.0.0.1", 0)) as taken, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        port = taken.getsockname()[1]
        assert f"port {port} is taken" in cli("mcp", cli.app, "--http", "--port", str(port), code=2).err
        gc.collect()
    assert not [str(one.message) for one in warned if "never awaited" in str(one.message)]


def test_a_run_of_a_workflow_that_is_gone_is_told_and_once(cli: Cli) -> None:
    cli("start", cli.app, "countdown", "1", "--id", "c1")
    path = cli.folder / f"{cli.module}.py"
    path.write_text(path.read_text().replace("def countdown(", "def renamed("))
    process = cli.process("dev", cli.app, "--port", "0")
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        told = next(line for line in lines if " c1 " in line)
    finally:
        process.kill()
        rest = process.communicate(timeout=20)[1]
    assert "c1 has to wait: no workflow named 'countdown' in app 'shop'; registered: " in told
    assert " c1 " not in rest


def test_a_run_that_is_put_off_again_for_the_same_reason_is_not_told_again() -> None:
    console = Console(file=io.StringIO(), width=200)
    log = EventLog(console)
    for reason in ("no key", "no key", "no workflow", "no workflow", "no key"):
        log(Event("put off", "c1", 0, {"reason": reason, "delay": 1000}))
    assert log._put_off == {"c1": "no key"}
    log(Event("halted", "c1", 0, {"reason": "no key"}))
    assert log._put_off == {}, "a server that runs for months keeps nothing of what has ended"
    assert [line.split("wait: ")[1] for line in console.file.getvalue().splitlines() if "wait: " in line] == [  # type: ignore[attr-defined]
        "no key",
        "no workflow",
        "no key",
    ]


def test_a_token_from_the_environment_is_asked_for(cli: Cli) -> None:
    process = cli.process("dev", cli.app, "--port", "0", EVERSTEP_TOKEN="secret")
    try:
        server = Server(process)
        with pytest.raises(urllib.error.HTTPError) as caught:
            server.ask("promises")
        assert caught.value.code == 401
        assert server.ask("promises", Authorization="Bearer secret")["promises"] == []
    finally:
        process.kill()
        process.communicate(timeout=20)
