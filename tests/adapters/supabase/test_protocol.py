"""The protocol on Postgres: every answer as on the memory oracle, and histories of eight clients linearizable.

EVERSTEP_AGREEMENT_REQUESTS and EVERSTEP_HISTORIES make it long.
"""

from __future__ import annotations

import os

from everstep.stores import open_store
from tests.gateway.test_agreement import agree
from tests.gateway.test_linearizability import run

REQUESTS = int(os.environ.get("EVERSTEP_AGREEMENT_REQUESTS", "600"))
HISTORIES = int(os.environ.get("EVERSTEP_HISTORIES", "12"))


def test_every_answer_agrees_with_the_oracle(dsn: str) -> None:
    met = agree(open_store(dsn), queue=False, requests=REQUESTS)
    assert {status for _, status in met} >= {200, 404, 409}


def test_histories_are_linearizable(dsn: str) -> None:
    assert run(open_store(dsn), queue=False, count=HISTORIES) > HISTORIES
