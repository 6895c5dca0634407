"""One Postgres for every test of this folder that does not break it, with an empty store for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components import requires_component
from tools.components import postgres

requires_component("psycopg", hint="pip install -e '.[supabase]'")

import psycopg  # noqa: E402


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    found = postgres.find()
    requires_component("postgres", hint=postgres.HINT, present=found is not None)
    # What a crash leaves behind is tested on a server that syncs; here nobody pulls the plug.
    settings = {"fsync": os.environ.get("EVERSTEP_PG_FSYNC", "off"), "synchronous_commit": "off"}
    with postgres.Server(settings=settings) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(migration())
        yield server


@pytest.fixture
def dsn(server: postgres.Server) -> str:
    """A database with the migration and not a row."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("truncate everstep.rows, everstep.bells")
    return server.dsn


def migration(name: str = "everstep") -> bytes:
    folder = Path(__file__).resolve().parents[3] / "adapters" / "supabase" / "everstep_supabase" / "sql"
    return (folder / f"{name}.sql").read_bytes()


@pytest.fixture(scope="session")
def supabase_server() -> Iterator[postgres.Server]:
    """A database as Supabase sets one up, with the stand-ins of its extensions, and the migration."""
    found = postgres.find()
    requires_component("postgres", hint=postgres.HINT, present=found is not None)
    with postgres.Server(settings={"fsync": "off", "synchronous_commit": "off"}) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute((Path(__file__).parent / "standins.sql").read_bytes())
            connection.execute(migration())
        yield server


@pytest.fixture
def project(supabase_server: postgres.Server) -> str:
    """The same without a row, a bell or a secret."""
    with psycopg.connect(supabase_server.dsn, autocommit=True) as connection:
        connection.execute(
            "truncate everstep.rows, everstep.bells, vault.secrets, net.http_request_queue, cron.job_run_details"
        )
    return supabase_server.dsn
