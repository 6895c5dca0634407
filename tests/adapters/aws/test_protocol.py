"""The protocol on DynamoDB Local: every answer as on the memory oracle, and histories of eight clients linearizable.

EVERSTEP_AGREEMENT_REQUESTS and EVERSTEP_HISTORIES make it long.
"""

from __future__ import annotations

import os

import pytest

from tests.gateway.test_agreement import agree
from tests.gateway.test_linearizability import run

from .emulators import local_store

pytestmark = pytest.mark.xdist_group("dynamodb-local")

REQUESTS = int(os.environ.get("EVERSTEP_AGREEMENT_REQUESTS", "250"))
HISTORIES = int(os.environ.get("EVERSTEP_HISTORIES", "12"))


def test_every_answer_agrees_with_the_oracle() -> None:
    met = agree(local_store(), queue=True, requests=REQUESTS)
    assert {status for _, status in met} >= {200, 404, 409}


def test_histories_are_linearizable() -> None:
    assert run(local_store(), queue=True, count=HISTORIES) > HISTORIES
