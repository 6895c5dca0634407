"""Faults that no emulator produces, put where the bytes leave: below botocore, above the wire.

A script names what happens to the next requests, one word each; when it is over, everything goes through. `ok`; `lost`
carries the request out and drops the answer; `refused` never connects; `throttled`, `conflict`, `busy` and `internal`
are answered so without being carried out; `internal-done` is carried out and answered 500; any other word is a code.
"""

from __future__ import annotations

import json
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError

from everstep_aws.calls import Caller, make_client
from everstep_aws.store import DynamoStore

from .emulators import REGION, dynamodb_url, new_table

_CODES = {
    "throttled": (400, "ProvisionedThroughputExceededException"),
    "slowed": (400, "ThrottlingException"),
    "conflict": (400, "TransactionConflictException"),
    "busy": (503, "ServiceUnavailable"),
    "internal": (500, "InternalServerError"),
    "internal-done": (500, "InternalServerError"),
}


class _Raw:
    def __init__(self, body: bytes) -> None:
        self.body = body

    def stream(self, **_: Any) -> list[bytes]:
        return [self.body]


def answer(url: str, status: int, body: Any, headers: dict[str, str] | None = None) -> AWSResponse:
    """An answer of a service, as botocore gets it from the wire."""
    return AWSResponse(url, status, headers or {}, _Raw(json.dumps(body).encode()))


class Faults:
    """The session of one client, with a script; `sent` names the operations that left."""

    def __init__(self, client: Any) -> None:
        self._session = client._endpoint.http_session
        client._endpoint.http_session = self
        self.script: list[str | dict[str, Any]] = []
        self.sent: list[str] = []

    def send(self, request: Any) -> Any:
        target = request.headers.get("X-Amz-Target", b"")
        self.sent.append((target.decode() if isinstance(target, bytes) else target).rpartition(".")[2])
        fault = self.script.pop(0) if self.script else "ok"
        match fault:
            case "ok":
                return self._session.send(request)
            case "lost":
                self._session.send(request)
                raise ConnectionClosedError(endpoint_url=request.url)
            case "refused":
                raise EndpointConnectionError(endpoint_url=request.url)
            case {"reasons": reasons}:
                code = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException"
                body = {"__type": code, "Message": str(reasons), "CancellationReasons": [{"Code": c} for c in reasons]}
                return answer(request.url, 400, body)
            case str():
                if fault == "internal-done":
                    self._session.send(request)
                status, code = _CODES.get(fault, (400, fault))
                return answer(
                    request.url, status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "Message": fault}
                )
        raise AssertionError(fault)

    def close(self) -> None:
        self._session.close()


async def no_pause(seconds: float) -> None:
    """Nothing waits."""


def faulty_store() -> tuple[DynamoStore, Faults]:
    """A store over a fresh table of DynamoDB Local, and the script of its trouble."""
    client = make_client("dynamodb", region=REGION, endpoint=dynamodb_url())
    table = new_table(client)
    faults = Faults(client)
    return DynamoStore(table, caller=Caller(lambda: client, f"the table {table!r}", pause=no_pause)), faults
