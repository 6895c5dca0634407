"""True Python Workers: workerd with Cloudflare's own loader of Python, on the entry that the other tests run.

The loader is a bundle that workerd downloads when it first runs a Python module, and that is in no package registry.
Where it lies in a folder already (`wrangler dev` leaves it in one), name that folder in EVERSTEP_PYODIDE_BUNDLES.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.components import requires_component

from .worker import CLASSES, SITES, TrueWorker, sources, vendored

pytestmark = pytest.mark.xdist_group("workerd")


@pytest.fixture
def bundles() -> Path:
    named = os.environ.get("EVERSTEP_PYODIDE_BUNDLES", "")
    requires_component(
        "Cloudflare's bundle of Pyodide",
        installable=False,
        present=bool(named) and any(Path(named).glob("pyodide_*.capnp.bin*")),
        hint="it comes from the network alone; name its folder in EVERSTEP_PYODIDE_BUNDLES",
    )
    return Path(named)


def test_the_same_entry_runs_as_a_true_python_worker(tmp_path: Path, bundles: Path) -> None:
    files = {**sources(SITES / "runs"), "mode.py": b"STEPS = None\n", **vendored()}
    with TrueWorker(tmp_path, files, objects={**CLASSES, "LEDGER": "Ledger"}, bundles=bundles) as worker:
        worker.post("/workflows/countdown", {"id": "c5", "args": [5]})
        assert worker.result("c5") == "counted down from 5"
        assert [text for _, text in worker.get("/notes/c5.")] == ["5", "4", "3", "2", "1", "Done"]
