"""One Firestore emulator for all tests of this folder; each test has a project of its own in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.components import requires_component
from tools.components import firestore_emulator


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    """`host:port` of a running emulator."""
    requires_component(
        "firestore_emulator", present=firestore_emulator.find() is not None, hint=firestore_emulator.HINT
    )
    with firestore_emulator.running() as host:
        yield host


@pytest.fixture
def project(emulator: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty project, to which every Firestore client of this process is led."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator)
    return f"test-{os.urandom(5).hex()}"
