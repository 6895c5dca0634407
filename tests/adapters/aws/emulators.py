"""DynamoDB for the tests: moto in process, and the official DynamoDB Local, started once for the process that asks."""

from __future__ import annotations

import atexit
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from functools import cache
from itertools import count
from typing import Any
from urllib.error import HTTPError

import pytest

from everstep_aws.calls import Caller, make_client
from everstep_aws.store import DynamoStore
from everstep_aws.tables import create_table
from tests.components import requires_component
from tools.components import dynamodb_local

REGION = "us-east-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_tables = count(1)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def until(there: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            pytest.fail(f"{what} within {seconds} s")
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except HTTPError:
        return True
    except OSError:
        return False
    return True


@cache
def dynamodb_url() -> str:
    """DynamoDB Local, in memory; it ends with this process."""
    found = dynamodb_local.find()
    requires_component("dynamodb_local", present=found is not None, hint=dynamodb_local.HINT)
    assert found is not None
    port = free_port()
    process = subprocess.Popen(
        [
            found.java,
            "-Xmx384m",
            "-XX:TieredStopAtLevel=1",
            f"-Djava.library.path={found.folder / 'DynamoDBLocal_lib'}",
            "-jar",
            "DynamoDBLocal.jar",
            *("-inMemory", "-disableTelemetry", "-port", str(port)),
        ],
        cwd=found.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def stop() -> None:
        process.kill()
        process.wait()

    atexit.register(stop)
    url = f"http://127.0.0.1:{port}"
    until(lambda: answers(url), "DynamoDB Local answers")
    return url


@cache
def dynamodb() -> Any:
    """A client of DynamoDB Local; making one takes longer than most tests."""
    return make_client("dynamodb", region=REGION, endpoint=dynamodb_url())


def new_table(client: Any) -> str:
    """The name of a fresh table."""
    name = f"everstep-{next(_tables)}"
    assert create_table(name, client=client)
    return name


def local_store(table: str = "") -> DynamoStore:
    """A store over a table of DynamoDB Local, by default a fresh one."""
    name = table or new_table(dynamodb())
    return DynamoStore(name, region=REGION, caller=Caller(dynamodb, f"the table {name!r}"))


class Inline(Caller):
    """Calls on the loop's own thread: moto must not see two at a time."""

    async def _run(self, call: Callable[[], Any]) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = call()
        return answer


@cache
def mocked_dynamodb() -> Any:
    """A client for moto, which must be active at every use of it."""
    return make_client("dynamodb", region=REGION)


def moto_store(table: str = "") -> DynamoStore:
    """A store over a table of moto, by default a fresh one."""
    name = table or new_table(mocked_dynamodb())
    return DynamoStore(name, region=REGION, caller=Inline(mocked_dynamodb, f"the table {name!r}"))
