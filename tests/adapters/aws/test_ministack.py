"""The template deployed by its own command into an emulator that executes functions; nothing of ours is mocked.

The table, the queue with its mapping and its dead letters, the schedules, the function URL are the emulator's, made by
`sam deploy` from the template's file. What the emulator does not do as AWS does (platforms.md) is not relied on here.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from everstep.client import Client
from everstep.promise import TaskState
from everstep_aws import DynamoStore, SqsWaker
from everstep_aws.calls import make_client
from tests.components import requires_component
from tools.components import ministack, sam

from .emulators import CREDENTIALS, REGION, answers, free_port, until

pytestmark = pytest.mark.xdist_group("ministack")

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "token-of-the-test"
# No setting lowers the tick of its Scheduler.
_START = (
    "import ministack.services.scheduler as s; s._SCHEDULE_TICK_INTERVAL = 0.5\nfrom ministack.app import main; main()"
)


class Stack:
    """The deployed stack, and the clients a person would use."""

    def __init__(self, url: str, outputs: Mapping[str, str], folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.outputs = outputs
        self.http = f"{url}/_aws/lambda-url/{outputs['Url'].partition('//')[2].partition('.')[0]}"

    def call(self, method: str, path: str, body: Any = None, token: str = TOKEN) -> tuple[int, Any]:
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.http + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def start(self, workflow: str, *args: Any, id: str) -> None:
        status, body = self.call("POST", f"/workflows/{workflow}", {"id": id, "args": args})
        assert (status, body.get("id")) == (202, id), body

    def result(self, id: str, seconds: float = 150) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            view = asyncio.run(self._view(id))
            if view.state != "pending" or view.task == TaskState.HALTED.value:
                return view
            time.sleep(0.3)
        pytest.fail(f"after {seconds} s {id} is {asyncio.run(self._view(id))}")

    def resolve(self, id: str, value: Any) -> None:
        until(lambda: self.call("GET", f"/promises/{id}")[0] == 200, f"{id} is there")
        until(lambda: self.call("POST", f"/promises/{id}/resolve", {"value": value})[0] == 200, f"{id} is settled")

    async def _view(self, id: str) -> Any:
        client = self.client()
        try:
            return await client.get(id)
        finally:
            await client.close()

    def client(self) -> Client:
        store = DynamoStore(self.outputs["TableName"], region=REGION, endpoint=self.url)
        return Client(store, SqsWaker(self.outputs["QueueUrl"], region=REGION))

    def environment(self, **changes: str) -> None:
        """Change the function's environment."""
        functions = make_client("lambda", region=REGION, endpoint=self.url)
        name = self.outputs["FunctionName"]
        now = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        functions.update_function_configuration(FunctionName=name, Environment={"Variables": {**now, **changes}})

    def executions(self, id: str) -> dict[str, int]:
        ran = self.folder / "ran"
        return {path.name: path.stat().st_size for path in ran.iterdir() if path.name.startswith(f"{id}.")}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    python, tools = ministack.find(), sam.find()
    requires_component("ministack", present=python is not None, hint=ministack.HINT)
    requires_component("sam", present=tools is not None, hint=sam.HINT)
    assert python is not None
    assert tools is not None
    folder = tmp_path_factory.mktemp("ministack")
    (folder / "ran").mkdir()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON", "EVERSTEP_"))}
    emulated = {
        **clean,
        **CREDENTIALS,
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "LAMBDA_ACCOUNT_CONCURRENCY": "8",
    }
    with (folder / "ministack.log").open("w") as log:
        process = subprocess.Popen([python, "-c", _START], env=emulated, stdout=log, stderr=log, cwd=folder)
    try:
        until(lambda: answers(f"{url}/_ministack/health"), "ministack answers")
        environment = {
            **clean,
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": url,
            "SAM_CLI_TELEMETRY": "0",
            "PATH": f"{tools.sam.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "PYTHONPATH": f"{ROOT / 'core'}{os.pathsep}{ROOT / 'adapters' / 'aws'}",
        }
        os.environ.update(CREDENTIALS)
        yield Stack(url, deployed(folder, environment), folder)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def deployed(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """`everstep new`, the loop's function in place of the template's, and the one command."""
    made = folder / "demo"
    new = [sys.executable, "-m", "everstep.cli", "new", "countdown", str(made), "--platform", "aws"]
    subprocess.run(new, env=dict(environment), check=True, capture_output=True)
    shutil.copy(Path(__file__).parent / "loop" / "function.py", made / "aws" / "function.py")
    # A message comes back while its holder may still live: what keeps a run in one hand is the lease.
    overrides = ["FunctionTimeout=4", "Visibility=2", "UrlAuth=NONE", f"Token={TOKEN}"]
    done = subprocess.run(
        ["sh", str(made / "aws" / "deploy.sh"), "loop", "--parameter-overrides", *overrides],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    clouds = make_client("cloudformation", region=REGION, endpoint=environment["AWS_ENDPOINT_URL"])
    (described,) = clouds.describe_stacks(StackName="loop")["Stacks"]
    return {one["OutputKey"]: one["OutputValue"] for one in described["Outputs"]}


def test_a_deployed_stack_finishes_everything(stack: Stack) -> None:
    stack.environment(RAN=str(stack.folder / "ran"), SHORT_DELAYS="1", STEPS="")
    assert stack.call("POST", "/workflows/countdown", {"id": "n"}, token="wrong")[0] == 401
    stack.start("countdown", 5, 0.2, id="countdown")
    stack.start("flaky", id="flaky")
    stack.start("fan", 25, id="fan25")
    stack.start("fan", 150, id="fan150")
    stack.start("everything", 3, id="far")  # its sleep takes the way through Scheduler
    stack.start("approve", id="approve")
    stack.start("long", 20, 0.7, id="long")  # three times over the function's time limit
    assert stack.result("countdown").value == "counted down from 5"
    assert stack.executions("countdown") == {f"countdown.{n}": 1 for n in (1, 3, 5, 7, 9, 11)}
    assert stack.result("flaky").value == "at last"
    stack.resolve("approve.1", {"yes": True})
    assert stack.result("approve").value == {"yes": True}
    stack.resolve("far.4", "yes")
    assert stack.result("far").value == ["first", 7, "yes", "last"]
    assert stack.result("fan25").value == 300
    assert stack.result("long").value == 20
    assert stack.result("fan150").value == 11_175


def test_with_an_invocation_for_each_step_the_result_is_the_same(stack: Stack) -> None:
    stack.environment(RAN=str(stack.folder / "ran"), SHORT_DELAYS="1", STEPS="1")
    stack.start("countdown", 5, 0.2, id="steps")
    stack.start("everything", 3, id="every")
    assert stack.result("steps").value.startswith("counted down from")
    assert set(stack.executions("steps").values()) == {1}
    stack.resolve("every.4", "yes")
    assert stack.result("every").value == ["first", 7, "yes", "last"]


def test_killed_at_five_calls_every_run_finishes_with_the_right_answer(stack: Stack) -> None:
    deaths = stack.folder / "deaths"
    deaths.mkdir()
    stack.environment(RAN=str(stack.folder / "ran"), SHORT_DELAYS="1", STEPS="", DEATHS=str(deaths))
    runs = [f"k{point}" for point in (3, 12, 21, 34, 47)]
    try:
        for id in runs:  # a start that dies gets no answer, and is asked for again
            until(lambda id=id: stack.call("POST", "/workflows/everything", {"id": id, "args": [3]})[0] == 202, id)
        for id in runs:
            stack.resolve(f"{id}.4", "yes")
        for id in runs:
            assert stack.result(id).value == ["first", 7, "yes", "last"]
            assert max(stack.executions(id).values()) <= 2
        assert {path.name for path in deaths.glob("*.died")} == {f"{id}.died" for id in runs}, "every death was met"
    finally:
        stack.environment(DEATHS="")
