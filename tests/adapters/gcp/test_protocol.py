"""The protocol on Firestore's emulator: every answer as on the memory oracle, and linearizable histories.

EVERSTEP_AGREEMENT_REQUESTS and EVERSTEP_HISTORIES make it long.
"""

from __future__ import annotations

import os
from itertools import count

import pytest

from everstep.stores import open_store
from tests.gateway.agreement import agree, wanted
from tests.gateway.histories import run

pytestmark = pytest.mark.xdist_group("firestore")

HISTORIES = int(os.environ.get("EVERSTEP_HISTORIES", "12"))


def test_every_answer_agrees_with_the_oracle(project: str) -> None:
    made = count()
    met = agree(lambda: open_store(f"firestore://{project}-{next(made)}"), queue=True, requests=wanted(250))
    assert {status for _, status in met} >= {200, 404, 409}


def test_histories_are_linearizable(project: str) -> None:
    assert run(open_store(f"firestore://{project}"), queue=True, count=HISTORIES) > HISTORIES
