"""The deployment scripts: checked by shellcheck, by the real gcloud's own parser, and run against a stand-in twice."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.components import requires_component
from tests.templates_by_path import made

NAMES = ("chess", "countdown")
STANDIN = Path(__file__).with_name("gcloud_standin.py")
EXPECTED = Path(__file__).with_name("commands")


class Cloud:
    """A project in which nothing exists yet."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "cloud"
        programs = folder / "programs"
        self.home.mkdir()
        programs.mkdir()
        for name in ("gcloud", "curl"):
            program = programs / name
            program.write_text(f"#!{sys.executable} -IS\n" + STANDIN.read_text())
            program.chmod(0o755)
        self.environ = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "STANDIN": str(self.home),
            "PATIENCE": "0",
        }

    def run(self, script: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(script), *arguments],
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def commands(self) -> list[list[str]]:
        """What was run since this was last asked."""
        log = self.home / "log.jsonl"
        found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        log.unlink(missing_ok=True)
        return found

    def state(self) -> dict[str, str]:
        found = json.loads((self.home / "state.json").read_text())
        return {key: value for key, value in found.items() if value in ("made", "deployed") and key != "release"}


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


def folder_of(name: str, tmp_path: Path) -> Path:
    """The template as `everstep new` makes it."""
    return made(name, tmp_path / "demo", "gcp")


def words(command: list[str]) -> str:
    """A command in one line, without what differs from run to run."""
    shown = []
    for word in command:
        if word.startswith("--source="):
            word = "--source=<stage>"
        elif word.startswith('{"source"'):
            word = "<the rules>"
        elif word.startswith("Authorization: Bearer "):
            word = "Authorization: Bearer <token>"
        shown.append(word if word and " " not in word else repr(word))
    return " ".join(word for word in shown if word not in ("--project=demo", "--quiet"))


@pytest.mark.parametrize("name", NAMES)
def test_the_scripts_pass_shellcheck(name: str, tmp_path: Path) -> None:
    requires_component("shellcheck", present=shutil.which("shellcheck", path=_programs()) is not None)
    scripts = sorted(str(path) for path in (folder_of(name, tmp_path) / "gcp").glob("*.sh"))
    assert len(scripts) == 3
    done = subprocess.run(
        ["shellcheck", "--external-sources", *scripts],
        env={**os.environ, "PATH": _programs()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def _programs() -> str:
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


@pytest.mark.parametrize("name", NAMES)
def test_deploying_runs_these_commands_and_twice_is_as_good_as_once(name: str, cloud: Cloud, tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path)
    first = cloud.run(folder / "gcp" / "deploy.sh", PROJECT="demo")
    assert first.returncode == 0, first.stderr
    commands = [words(command) for command in cloud.commands()]
    assert commands == (EXPECTED / f"{name}_deploy.txt").read_text().splitlines()
    stands = cloud.state()

    again = cloud.run(folder / "gcp" / "deploy.sh", PROJECT="demo")
    assert again.returncode == 0, again.stderr
    assert cloud.state() == stands
    repeated = [words(command) for command in cloud.commands()]
    assert not [command for command in repeated if " create " in command or "versions add" in command]
    assert [command for command in repeated if "functions deploy" in command]

    refused = cloud.run(folder / "gcp" / "teardown.sh", PROJECT="demo")
    assert refused.returncode == 2, "it asks first"
    assert cloud.state() == stands
    for _ in range(2):
        gone = cloud.run(folder / "gcp" / "teardown.sh", "--yes", PROJECT="demo")
        assert gone.returncode == 0, gone.stderr
        assert cloud.state() == {}


def test_the_peers_that_it_is_given_reach_the_function(cloud: Cloud, tmp_path: Path) -> None:
    peers = "billing=https://billing.run.app,ledger=https://ledger.run.app"
    done = cloud.run(folder_of("countdown", tmp_path) / "gcp" / "deploy.sh", PROJECT="demo", EVERSTEP_PEERS=peers)
    assert done.returncode == 0, done.stderr
    (deploy,) = [command for command in cloud.commands() if "functions" in command and "deploy" in command]
    (variables,) = [word for word in deploy if word.startswith("--update-env-vars=")]
    assert f";EVERSTEP_PEERS={peers}" in variables
    assert "EVERSTEP_CALLERS" not in variables


def test_every_command_is_one_that_gcloud_knows(tmp_path: Path) -> None:
    """Its own parser says so: a mistyped flag would be found by nobody else before the day it is needed."""
    requires_component("gcloud", installable=False, hint="install the Google Cloud CLI")
    cloud = Cloud(tmp_path)
    folder = folder_of("chess", tmp_path)
    for script, *arguments in (("deploy.sh",), ("teardown.sh", "--yes")):
        assert cloud.run(folder / "gcp" / script, *arguments, PROJECT="demo").returncode == 0
    seen = {}
    for command in cloud.commands():
        if command[0] == "gcloud" and "describe" not in command:
            shape = " ".join(word.partition("=")[0] if word.startswith("-") else word for word in command)
            seen[re.sub(r"chess-\w+", "x", shape)] = command
    listed = tmp_path / "commands.json"
    listed.write_text(json.dumps([{"command_string": shlex.join(command)} for command in seen.values()]))
    linted = subprocess.run(
        ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={listed}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(tmp_path), "CLOUDSDK_CORE_PROJECT": "demo"},
    )
    judged = json.loads(linted.stdout)
    assert len(judged) == len(seen)
    assert [(one["command_string"], one.get("error_message")) for one in judged if not one["success"]] == []


@pytest.mark.parametrize("at", [16, 23])
def test_a_deployment_cut_short_is_finished_by_the_next(at: int, cloud: Cloud, tmp_path: Path) -> None:
    folder = folder_of("countdown", tmp_path)
    cloud.run(folder / "gcp" / "deploy.sh", PROJECT="demo", STANDIN_FAILS_AT=str(at))
    cloud.commands()
    again = cloud.run(folder / "gcp" / "deploy.sh", PROJECT="demo")
    assert again.returncode == 0, again.stderr
    assert sorted(cloud.state()) == [
        "firestore databases countdown",
        "functions countdown",
        "iam service-accounts countdown-run@demo.iam.gserviceaccount.com",
        "iam service-accounts countdown-wake@demo.iam.gserviceaccount.com",
        "scheduler jobs countdown-sweep",
        "secrets countdown-secret",
        "secrets countdown-token",
        "storage buckets gs://demo-countdown-payloads",
        "tasks queues countdown",
    ]


@pytest.mark.parametrize("name", ["saga", "batch"])
def test_a_template_without_infrastructure_of_its_own_is_deployed_with_the_countdown_s(
    name: str, cloud: Cloud, tmp_path: Path
) -> None:
    folder = folder_of(name, tmp_path)
    done = cloud.run(folder / "gcp" / "deploy.sh", PROJECT="demo")
    assert done.returncode == 0, done.stderr
    assert f"functions {name}" in cloud.state()
    assert not [key for key in cloud.state() if "countdown" in key]


def test_without_a_project_nothing_is_done(cloud: Cloud, tmp_path: Path) -> None:
    folder = folder_of("countdown", tmp_path)
    (tmp_path / "programs" / "gcloud").write_text("#!/bin/sh\nexit 1\n")
    done = cloud.run(folder / "gcp" / "deploy.sh")
    assert done.returncode != 0


def test_no_role_is_wider_than_what_it_is_for() -> None:
    granted = {
        (word.removeprefix("--role="), command.split()[1])
        for command in (EXPECTED / "chess_deploy.txt").read_text().splitlines()
        for word in command.split()
        if word.startswith("--role=")
    }
    assert granted == {
        ("roles/datastore.user", "projects"),
        ("roles/cloudtasks.enqueuer", "tasks"),
        ("roles/cloudtasks.taskDeleter", "tasks"),
        ("roles/iam.serviceAccountUser", "iam"),
        ("roles/storage.objectUser", "storage"),
        ("roles/secretmanager.secretAccessor", "secrets"),
    }
