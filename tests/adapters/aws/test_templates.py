"""The SAM templates: valid, least privileged, the same table as `create_table` makes, and a package that is small."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from moto import mock_aws

from everstep import App, Context, current_step
from everstep.cli.new import templates
from everstep.client import Client
from everstep.codec import Codec
from everstep.promise import TaskState
from everstep_aws import S3Blobs, handler
from everstep_aws.calls import make_client
from everstep_aws.deadletters import DeadLetters
from everstep_aws.package import CannotPackage, main, package
from everstep_aws.store import DynamoStore
from everstep_aws.tables import table_definition
from tests.components import requires_component
from tests.templates_by_path import TEMPLATES, made
from tools.components import sam

from .cloud import QUEUE_ARN, Cloud, LambdaContext, Message
from .emulators import CREDENTIALS, REGION, Inline, mocked_dynamodb, new_table
from .faults import no_pause

INFRASTRUCTURE = TEMPLATES / "countdown" / "aws"


class _Loader(yaml.SafeLoader):
    """Reads the short forms of CloudFormation's functions as `{name: argument}`."""


def _function(loader: Any, name: str, node: Any) -> Any:
    match node:
        case yaml.ScalarNode():
            return {name: loader.construct_scalar(node)}
        case yaml.SequenceNode():
            return {name: loader.construct_sequence(node, deep=True)}
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _function)


def template(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((folder / "template.yaml").read_text(), _Loader)
    return loaded


def test_the_template_makes_the_table_that_the_code_makes() -> None:
    properties = template(INFRASTRUCTURE)["Resources"]["Table"]["Properties"]
    assert {**properties, "TableName": "t"} == {**table_definition("t"), "SSESpecification": {"SSEEnabled": True}}


def test_more_receives_than_deaths_and_a_visibility_beyond_the_timeout() -> None:
    """Rule W9."""
    whole = template(INFRASTRUCTURE)
    queue = whole["Resources"]["Wakes"]["Properties"]
    assert queue["RedrivePolicy"]["maxReceiveCount"] > App("a").max_deaths + 1
    assert queue["MessageRetentionPeriod"] == 14 * 86_400
    parameters = whole["Parameters"]
    assert parameters["Visibility"]["Default"] == parameters["FunctionTimeout"]["Default"] + 30


def statements(role: str) -> list[dict[str, Any]]:
    policies = template(INFRASTRUCTURE)["Resources"][role]["Properties"]["Policies"]
    whole = [one["If"][1] if "If" in one else one for one in policies]
    return [statement for policy in whole for statement in policy["PolicyDocument"]["Statement"]]


def actions(role: str) -> set[str]:
    return {
        action
        for statement in statements(role)
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }


def resources(statement: dict[str, Any]) -> list[Any]:
    named = statement["Resource"]
    return named if isinstance(named, list) else [named]


@pytest.mark.parametrize("role", ["FunctionRole", "DeadLettersRole", "SchedulerRole"])
def test_policies_name_actions_and_resources_of_the_stack(role: str) -> None:
    whole = template(INFRASTRUCTURE)
    known = {*whole["Resources"], *whole["Parameters"], "AWS::Partition", "AWS::Region", "AWS::AccountId"}
    for statement in statements(role):
        assert set(statement) <= {"Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        assert "*" not in str(statement["Action"])
        assert "*" not in str(statement.get("Condition", ""))
        for resource in resources(statement):
            ((kind, text),) = resource.items()
            assert kind in ("GetAtt", "Sub")
            named = [text] if kind == "GetAtt" else re.findall(r"\$\{([^}]+)\}", text)
            assert named
            assert {name.partition(".")[0] for name in named} <= known, text


AT_RUN_TIME = {
    (
        ("scheduler:CreateSchedule", "scheduler:DeleteSchedule"),
        "arn:${AWS::Partition}:scheduler:${AWS::Region}:${AWS::AccountId}:schedule/${Schedules}/everstep-*",
    ),
    (
        ("s3:DeleteObject", "s3:GetObject", "s3:PutObject"),
        "arn:${AWS::Partition}:s3:::${PayloadBucket}/everstep/*",
    ),
}


def test_a_wildcard_stands_for_the_end_of_a_name_that_is_made_at_run_time_and_for_nothing_else() -> None:
    """IAM has nothing else for them: both services take such names in the ARN alone (the template's README)."""
    whole = template(INFRASTRUCTURE)
    found = {
        (tuple(statement["Action"]), str(text))
        for role, resource in whole["Resources"].items()
        if resource["Type"] == "AWS::IAM::Role"
        for statement in statements(role)
        for text in (next(iter(resource.values())) for resource in resources(statement))
        if "*" in str(text)
    }
    assert found == AT_RUN_TIME
    assert whole["Resources"]["Schedules"]["Type"] == "AWS::Scheduler::ScheduleGroup", "of this stack, as what is in it"
    assert "*" not in str([whole["Resources"][name] for name in whole["Resources"] if not name.endswith("Role")])


class Seen:
    """The IAM actions of every request that leaves."""

    def __init__(self) -> None:
        self.actions: set[str] = set()

    def watch(self, client: Any) -> Any:
        client.meta.events.register("before-call", self._note)
        return client

    def _note(self, model: Any, params: Any, **_: Any) -> None:
        service = str(model.service_model.service_id).lower()
        if model.name != "TransactWriteItems":
            self.actions.add(f"{service}:{model.name}")
            return
        for action in json.loads(params["body"])["TransactItems"]:
            (kind,) = action
            self.actions.add(f"dynamodb:{kind}Item")


@pytest.fixture
def mocked() -> Iterator[None]:
    with mock_aws():
        yield


BY_LAMBDA = {
    *("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
    *("logs:CreateLogStream", "logs:PutLogEvents"),
}
BY_SCHEDULER = {"iam:PassRole"}


@pytest.mark.usefixtures("mocked")
def test_the_function_calls_what_its_policy_allows_and_nothing_is_allowed_that_it_never_calls() -> None:
    seen, cloud = Seen(), Cloud()
    s3 = seen.watch(make_client("s3", region=REGION))
    make_client("s3", region=REGION).create_bucket(Bucket="payloads")
    blobs = S3Blobs("payloads", caller=Inline(lambda: s3, "the bucket"))
    app = App("policy", retention=60, codec=Codec(blobs=blobs, limit=100_000))

    @app.step
    def fail_once() -> int:
        if current_step().attempt == 1:
            raise ValueError("once")
        return 1

    @app.workflow
    async def one(ctx: Context, n: int) -> int:
        return n

    @app.workflow
    async def loop(ctx: Context, n: int) -> Any:
        await ctx.run(fail_once)
        await asyncio.gather(ctx.rpc(one, 1), ctx.rpc(one, 2), ctx.promise(timeout=3600))
        await ctx.sleep(7200)
        return ctx.continue_as_new(n - 1) if n else "x" * 300_000

    dynamodb = seen.watch(make_client("dynamodb", region=REGION))
    table = new_table(mocked_dynamodb())
    store = DynamoStore(table, caller=Inline(lambda: dynamodb, "the table"))
    waker = cloud.waker()
    for caller in (waker._sqs, waker._scheduler):
        seen.watch(caller.client)
    client = Client(store, waker, app=app, clock=cloud.clock)
    function = handler(app, client=client)

    async def deliver(message: Message) -> bool:
        answer = await function.answer({"Records": [message.record(QUEUE_ARN)]}, LambdaContext())
        return bool(answer == {"batchItemFailures": []})

    async def story() -> None:
        await function.answer({"workflow": "loop", "args": [1], "id": "l"}, LambdaContext())
        await cloud.run(cloud.clock.now() + 30_000, deliver)
        await client.resolve("l.4", 1)
        await cloud.run(cloud.clock.now() + 7_260_000, deliver)
        assert (await client.get("l")).generation == 2
        await client.resolve("l.g2.4", 1)
        await cloud.run(cloud.clock.now() + 7_260_000, deliver)
        assert len(await client.handle("l").result(0)) == 300_000
        await client.search(roots=False, state="resolved")
        cloud.clock.advance(600_000)
        assert (await function.answer({"everstep": "sweep"}, LambdaContext()))["purged"] > 0

    asyncio.run(story())
    assert seen.actions == actions("FunctionRole") - BY_LAMBDA - BY_SCHEDULER


@pytest.mark.usefixtures("mocked")
def test_the_dead_letter_consumer_calls_what_its_policy_allows_and_nothing_more_is_allowed() -> None:
    seen, cloud, app = Seen(), Cloud(), App("dead")

    @app.workflow
    async def waits(ctx: Context, seconds: float, text: str = "") -> Any:
        await ctx.sleep(seconds)
        return await ctx.promise()

    dynamodb = seen.watch(make_client("dynamodb", region=REGION))
    store = DynamoStore(new_table(mocked_dynamodb()), caller=Inline(lambda: dynamodb, "the table", pause=no_pause))
    client = Client(store, cloud.waker(), app=app, clock=cloud.clock)
    for caller in (client.waker._sqs, client.waker._scheduler):
        seen.watch(caller.client)
    function = handler(app, client=client)

    async def deliver(message: Message) -> bool:
        return bool(await function.answer({"Records": [message.record(QUEUE_ARN)]}, LambdaContext()))

    async def story() -> None:
        await client.start(waits, 7200, "x" * 2000, id="sleeps")
        await client.start(waits, 0, id="waits")
        await cloud.run(cloud.clock.now() + 10_000, deliver)
        await client.start(waits, 0, id="near", timeout=600)
        await client.start(waits, 0, id="far", timeout=86_400)
        dead = DeadLetters(Client(store, client.waker, clock=cloud.clock))
        seen.actions.clear()
        for id in ("sleeps", "waits", "near", "far", "nobody"):
            record = Message("m", f'{{"id":"{id}","version":1}}', {}, 0).record(QUEUE_ARN)
            assert await dead.answer({"Records": [record]}, LambdaContext()) == {"batchItemFailures": []}
        assert seen.actions == actions("DeadLettersRole") - BY_LAMBDA - BY_SCHEDULER
        for id in ("sleeps", "waits", "near", "far"):
            assert (await client.get(id)).task == TaskState.HALTED.value

    asyncio.run(story())


# The tools.


HERE = [name for name, one in templates().items() if "aws" in one.platforms]
CHECKED = HERE if os.environ.get("EVERSTEP_SOAK") else ["countdown"]
"""By the tools, which take ten seconds each; they see the same template in all."""


@pytest.fixture(scope="module", params=HERE)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged(request.param, tmp_path_factory.mktemp(request.param))


def packaged(name: str, place: Path) -> Path:
    """A template as `everstep new` leaves it and its own script packs it, before the command that needs the cloud."""
    folder = made(name, place / "demo", "aws") / "aws"
    assert {"README.md", "deploy.sh", "function.py", "teardown.sh", "template.yaml"} == set(os.listdir(folder))
    programs = place / "programs"
    programs.mkdir()
    (programs / "sam").write_text("#!/bin/sh\n")
    (programs / "sam").chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["./deploy.sh"], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_whatever_is_deployed_it_is_by_the_template_that_is_checked(built: Path) -> None:
    assert (built / "template.yaml").read_text() == (INFRASTRUCTURE / "template.yaml").read_text()


def test_the_package_is_small_and_whole(built: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "package.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((built / "build").rglob("*")):
            archive.write(path, path.relative_to(built / "build"))
        theirs = sum(one.compress_size for one in archive.infolist() if one.filename.startswith("chess/"))
    assert (tmp_path / "package.zip").stat().st_size - theirs < 1_000_000, "but for what one template itself requires"
    held = {path.name for path in (built / "build").iterdir()}
    assert held >= {"everstep", "everstep_aws", "mangum", "starlette", "app.py", "function.py"}
    assert held & {"boto3", "botocore", "everstep_gcp"} == set()
    # Nothing but the package and the standard library: everything else that is needed must be in it.
    code = (
        "import sys; sys.path = [sys.argv[1], *[p for p in sys.path if 'packages' not in p]]\n"
        "import function, everstep_aws.web, everstep.http.application; print(function.handler.app.name)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(built / "build")], capture_output=True, text=True, check=False
    )
    name = done.stdout.strip()
    assert f'App("{name}"' in (built / "build" / "app.py").read_text(), done.stderr
    assert ("chess" in held) == (name == "chess")
    assert held >= {"chess": {"players.py", "board"}, "batch": {"records.csv"}}.get(name, set())


def test_a_package_that_is_not_there_or_compiled_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CannotPackage, match="nowhere-to-be-found"):
        package(tmp_path / "a", extra=["nowhere_to_be.found"])
    with pytest.raises(CannotPackage, match=r"cryptography has compiled files|cffi has compiled files"):
        package(tmp_path / "b", extra=["cryptography"])


def test_a_file_of_requirements_may_say_what_a_user_would_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everstep itself, of which a function has what it needs, and what another Python needs."""
    site = tmp_path / "site"
    (site / "everstep-9.dist-info").mkdir(parents=True)
    (site / "everstep-9.dist-info" / "METADATA").write_text("Name: everstep\nVersion: 9\n")
    (site / "everstep-9.dist-info" / "RECORD").write_text("everstep/testing/everything.py,,\n")
    (site / "everstep" / "testing").mkdir(parents=True)
    (site / "everstep" / "testing" / "everything.py").write_text("")
    monkeypatch.syspath_prepend(str(site))
    asked = tmp_path / "requirements.txt"
    asked.write_text('everstep[aws]>=0.1.0  # us\nnowhere; python_version < "3.8"\ncronsim >= 2.6\n')
    assert main([str(tmp_path / "build"), "--requirements", str(asked)]) == 0, capsys.readouterr().err
    assert (tmp_path / "build" / "everstep" / "client.py").is_file()
    assert not (tmp_path / "build" / "everstep" / "testing").exists()


def command(folder: Path, *words: str | Path) -> str:
    environment = {**os.environ, **CREDENTIALS, "SAM_CLI_TELEMETRY": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [str(word) for word in words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", CHECKED)
def test_the_template_passes_every_check_and_builds(name: str, tmp_path: Path) -> None:
    built = packaged(name, tmp_path)
    tools = sam.find()
    requires_component("sam", present=tools is not None, hint=sam.HINT)
    assert tools is not None
    assert "valid SAM Template" in command(built, tools.sam, "validate")
    assert "valid SAM Template" in command(built, tools.sam, "validate", "--lint")
    command(built, tools.cfn_lint, "template.yaml")
    runtime = f"Runtime=python3.{sys.version_info.minor}"
    assert "Build Succeeded" in command(built, tools.sam, "build", "--parameter-overrides", runtime)
    assert (built / ".aws-sam" / "build" / "Function" / "everstep_aws").is_dir()


def test_the_scripts_are_shell_and_name_their_stack(built: Path) -> None:
    name = re.findall(r'App\("(\w+)"', (built / "build" / "app.py").read_text())[0]
    for script in ("deploy.sh", "teardown.sh"):
        subprocess.run(["sh", "-n", str(built / script)], check=True)
        assert name in (built / script).read_text()
        assert os.access(built / script, os.X_OK)
