"""The command line on a Firestore database: looking needs nothing but credentials, starting needs the queue."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from everstep.promise import Kind, Record, State
from everstep.rows import to_row
from everstep.testing.conformance.rows import write
from everstep_gcp import FirestoreStore
from tests.components import requires_component

pytestmark = pytest.mark.xdist_group("firestore")


def everstep(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    requires_component("click")
    return subprocess.run(
        [sys.executable, "-m", "everstep.cli", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


PROGRAM = """
from everstep import App, Context

app = App("nap")


@app.workflow
async def nap(ctx: Context) -> None:
    await ctx.sleep(1)
"""


def test_looking_and_starting(project: str, tmp_path: Path) -> None:
    async def prepare() -> None:
        store = FirestoreStore(project)
        record = Record("o-17", State.RESOLVED, Kind.ROOT, "o-17", settled_at=5, rev=1)
        await write(store, to_row(record))
        await store.close()

    asyncio.run(prepare())
    url = f"firestore://{project}"
    listed = everstep("ls", "--store", url, "--json")
    assert listed.returncode == 0, listed.stderr
    assert "o-17" in listed.stdout
    got = everstep("get", "o-17", "--store", url, "--json")
    assert json.loads(got.stdout)["state"] == "resolved"
    verified = everstep("verify", "--store", url)
    assert verified.returncode == 0, verified.stderr
    (tmp_path / "nap.py").write_text(PROGRAM)
    words = ("start", f"{tmp_path / 'nap.py'}:app", "nap", "--id", "n", "--store", url)
    refused = everstep(*words, EVERSTEP_QUEUE="", EVERSTEP_URL="")
    assert refused.returncode != 0
    assert "EVERSTEP_QUEUE" in refused.stderr + refused.stdout
    assert "Traceback" not in refused.stderr
