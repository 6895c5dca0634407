"""Workers that several modules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .worker import CLASSES, SITES, Worker, sources, vendored


def runs(folder: Path, steps: int | None = None, *, blobs: bool = False, start: bool = True) -> Worker:
    """The Worker of `sites/runs`."""
    files = {**sources(SITES / "runs"), "mode.py": f"STEPS = {steps}\n".encode(), **vendored()}
    bucket = "EVERSTEP_BLOBS" if blobs else None
    return Worker(folder, files, objects={**CLASSES, "LEDGER": "Ledger"}, bucket=bucket, start=start)


@pytest.fixture(scope="package")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with runs(tmp_path_factory.mktemp("runs"), blobs=True) as running:
        yield running


@pytest.fixture(scope="package")
def step_by_step(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with runs(tmp_path_factory.mktemp("steps"), 1) as running:
        yield running
