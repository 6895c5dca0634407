"""Liveness: a killed process is dead at once, a living one never, and every doubt counts as alive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from everstep.stores.liveness import Liveness

CHILD = """
import sys
from everstep.stores.liveness import Liveness
liveness = Liveness(sys.argv[1])
print(liveness.token, flush=True)
sys.stdin.read()
"""


def start(path: Path) -> tuple[subprocess.Popen[str], str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def files(path: Path) -> list[str]:
    return sorted(os.listdir(f"{path}.live"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "everstep.db"


def test_a_killed_process_is_dead_and_its_file_is_removed(path: Path) -> None:
    child, token = start(path)
    here = Liveness(path)
    try:
        assert here.alive(token)
        assert len(files(path)) == 1
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not here.alive(token)
        assert files(path) == []
        assert not here.alive(token)
    finally:
        end(child)


def test_asking_does_not_take_the_life_of_a_living_one(path: Path) -> None:
    child, token = start(path)
    try:
        here, there = Liveness(path), Liveness(path)
        for _ in range(3):
            assert here.alive(token)
            assert there.alive(token)
        assert here.alive(there.token)
        assert there.alive(here.token)
    finally:
        end(child)


def test_a_process_is_alive_to_itself(path: Path) -> None:
    here = Liveness(path)
    assert here.token == here.token
    assert here.alive(here.token)
    assert len(files(path)) == 1


def test_a_closed_one_is_dead_and_leaves_nothing(path: Path) -> None:
    here, there = Liveness(path), Liveness(path)
    token = here.token
    assert there.alive(token)
    here.close()
    assert not there.alive(token)
    assert files(path) == []
    assert here.token != token


def test_a_forgotten_one_is_dead_and_leaves_nothing(path: Path) -> None:
    token = Liveness(path).token

    assert not Liveness(path).alive(token)
    assert files(path) == []


@pytest.mark.parametrize(
    "token", ["", "worker-7", "elsewhere:" + "0" * 32, "elsewhere:worker", "a:b:c", "../../etc/passwd", "{host}:../x"]
)
def test_what_cannot_be_known_is_alive(path: Path, token: str) -> None:
    here = Liveness(path)
    host = here.token.rpartition(":")[0]
    assert here.alive(token.format(host=host))


def test_a_token_without_a_file_is_dead(path: Path) -> None:
    here = Liveness(path)
    host = here.token.rpartition(":")[0]
    assert not here.alive(f"{host}:{'0' * 32}")


def test_the_files_of_the_dead_are_swept_by_the_next_process(path: Path) -> None:
    child, token = start(path)
    survivor, living = start(path)
    try:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert len(files(path)) == 2
        Liveness(path)
        assert files(path) == [living.rpartition(":")[2]]
        assert token.rpartition(":")[2] not in files(path)
    finally:
        end(child)
        end(survivor)


FORKING = """
import os, sys
from everstep.stores.liveness import Liveness
liveness = Liveness(sys.argv[1])
print(liveness.token, flush=True)
if os.fork() == 0:
    print(liveness.token, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_does_not_keep_its_parent_alive(path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", FORKING, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    tokens = [parent.stdout.readline().strip(), parent.stdout.readline().strip()]
    here = Liveness(path)
    assert tokens[0] != tokens[1]
    assert [here.alive(token) for token in tokens] == [True, True]
    parent.kill()
    parent.wait()
    assert [here.alive(token) for token in tokens] == [False, True]
    parent.communicate()  # closes the child's input, which ends it
