"""The function as the gateway of the official SDKs: its function URL takes the protocol, its queue pushes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from tests.components import requires_component
from tests.gateway.support import Dev, Worker, python, scheduled, sdks, survives, typescript, until

from .emulators import local_store
from .runtime import Function, LiveCloud, Reply, serve

requires_component("awslambdaric", hint="pip install -e '.[test-aws]'")
requires_component("httpx", hint="pip install -e '.[gateway]'")
TOKEN = "the function's own token"
pytestmark = pytest.mark.xdist_group("dynamodb-local")


class Url:
    """A function URL: each request is an invocation."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._server = serve(self._routes)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _routes(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        at = urlsplit(path)
        outcome = self._function.invoke({
            "version": "2.0", "routeKey": "$default", "rawPath": at.path, "rawQueryString": at.query,
            "headers": {name.lower(): text for name, text in headers.items()},
            "requestContext": {
                "accountId": "1", "apiId": "x", "domainName": "x.lambda-url.on.aws", "requestId": "r", "timeEpoch": 0,
                "http": {"method": method, "path": at.path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1",
                         "userAgent": "t"},
            },
            "body": base64.b64encode(body).decode(), "isBase64Encoded": True,
        })  # fmt: skip
        answer = outcome.value
        if outcome.kind != "response" or "statusCode" not in answer:
            return 502, {}, json.dumps(answer).encode()
        text = answer.get("body") or ""
        out = base64.b64decode(text) if answer.get("isBase64Encoded") else text.encode()
        return answer["statusCode"], {"Content-Type": answer["headers"].get("content-type", "")}, out

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Dev]:
    sdks()
    cloud = LiveCloud(visibility=20_500)
    function = Function(cloud, local_store().table, handler="shop.handler", timeout=20.0, EVERSTEP_TOKEN=TOKEN)
    function.consume(2)
    url = Url(function)
    try:
        yield cast(Dev, SimpleNamespace(url=url.url, folder=tmp_path))
    finally:
        url.close()
        function.close()
        cloud.close()


def test_the_typescript_sdk_with_lambda_as_its_server(gateway: Dev) -> None:
    def start(worker: Worker, id: str, *args: Any) -> Any:
        from urllib.request import Request, urlopen

        body = json.dumps({"id": id, "args": args}).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
        request = Request(f"{gateway.url}/workflows/calls", body, headers)
        with urlopen(request, timeout=60) as answer:
            assert answer.status == 202
        while True:
            with urlopen(Request(f"{gateway.url}/promises/{id}?wait=2", None, headers), timeout=60) as answer:
                shown = json.load(answer)
            if shown["state"] != "pending":
                return shown["value"]

    with typescript(gateway, "w1", PUSH="1", TOKEN=TOKEN) as worker:
        assert worker.run("l1", "local", "bob") == {"first": "BOB!", "second": "BOB!!"}
        assert worker.rpc("r1", "remote", "ann", "ts", target="ts") == "got hello ann"
        assert worker.rpc("n1", "nap", 1500, target="ts") is True
        answer = worker.tell("rpc", "a1", name="ask", args=["ship?"], target="ts")
        until(lambda: any(note.startswith("mail") for note in worker.notes()), worker)
        id = next(note for note in worker.notes() if note.startswith("mail")).split()[-1]
        worker.tell("resolve", id, value="yes")()
        assert answer() == "ship?: yes"
        assert worker.rpc("x1", "across", "quote", "everstep://shop", "pen", target="ts") == {
            "value": {"item": "pen", "cents": 300}
        }
        assert start(worker, "m1", worker.address, "greet", "eve") == "hello eve"
        survives(gateway, worker, typescript, PUSH="1", TOKEN=TOKEN)


def test_the_python_sdk_with_lambda_as_its_server(gateway: Dev) -> None:
    pushed = {"PUSH": "1", "TOKEN": TOKEN}
    with python(gateway, "p1", **pushed) as worker:
        assert worker.rpc("r1", "remote", "ann", "py") == "got hello ann"
        assert worker.rpc("x1", "across", "quote", "everstep://shop", "pen") == {"value": {"item": "pen", "cents": 300}}
        scheduled(gateway, worker, {"authorization": f"Bearer {TOKEN}"})
        survives(gateway, worker, python, **pushed)
