"""The protocol on DynamoDB: every answer as on the memory oracle, and histories of eight clients linearizable.

EVERSTEP_AGREEMENT_REQUESTS and EVERSTEP_HISTORIES make it long.
"""

from __future__ import annotations

import os

import pytest
from moto import mock_aws

from tests.gateway.agreement import agree, wanted
from tests.gateway.histories import run

from .emulators import local_store, moto_store

pytestmark = pytest.mark.xdist_group("dynamodb-local")

HISTORIES = int(os.environ.get("EVERSTEP_HISTORIES", "12"))


def test_every_answer_agrees_with_the_oracle() -> None:
    met = agree(local_store, queue=True, requests=wanted(250))
    assert {status for _, status in met} >= {200, 404, 409}


def test_every_answer_agrees_with_the_oracle_on_moto() -> None:
    with mock_aws():  # a slow stand-in for DynamoDB Local, so a tenth of its long run
        met = agree(moto_store, queue=True, requests=min(wanted(100), 10_000))
    assert {status for _, status in met} >= {200, 404, 409}


def test_histories_are_linearizable() -> None:
    assert run(local_store(), queue=True, count=HISTORIES) > HISTORIES
