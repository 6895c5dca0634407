"""The protocol on Postgres: every answer as on the memory oracle, and histories of eight clients linearizable.

EVERSTEP_AGREEMENT_REQUESTS and EVERSTEP_HISTORIES make it long.
"""

from __future__ import annotations

import os

import psycopg

from everstep.ports import Store
from everstep.stores import open_store
from tests.adapters.supabase.standins import PostgREST, token
from tests.adapters.supabase.test_rpc import Kept
from tests.gateway.agreement import agree, wanted
from tests.gateway.histories import run

HISTORIES = int(os.environ.get("EVERSTEP_HISTORIES", "12"))


def emptied(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("truncate everstep.rows, everstep.bells")


def test_every_answer_agrees_with_the_oracle(dsn: str) -> None:
    def fresh() -> Store:
        emptied(dsn)
        return open_store(dsn)

    met = agree(fresh, queue=False, requests=wanted(600))
    assert {status for _, status in met} >= {200, 404, 409}


def test_every_answer_agrees_with_the_oracle_over_rpc(project: str) -> None:
    port = psycopg.conninfo.conninfo_to_dict(project)["port"]
    with PostgREST(f"postgresql://authenticator:authenticator@127.0.0.1:{port}/postgres") as api:

        def fresh() -> Store:
            emptied(project)
            return Kept(api.url, token("service_role"))

        met = agree(fresh, queue=False, requests=wanted(200))
    assert {status for _, status in met} >= {200, 404, 409}


def test_histories_are_linearizable(dsn: str) -> None:
    assert run(open_store(dsn), queue=False, count=HISTORIES) > HISTORIES


def test_histories_are_linearizable_over_rpc(project: str) -> None:
    port = psycopg.conninfo.conninfo_to_dict(project)["port"]
    with PostgREST(f"postgresql://authenticator:authenticator@127.0.0.1:{port}/postgres") as api:
        emptied(project)
        assert run(Kept(api.url, token("service_role")), queue=False, count=HISTORIES) > HISTORIES
