"""The handler as functions-framework calls it, against the suite every handler must pass, and at its own edges."""

from __future__ import annotations

import pytest

from everstep.testing.conformance import HandlerSuite
from everstep.testing.conformance.handlers import Rig, Work

from .rig import FunctionRig
from .tokens import Keys

pytestmark = pytest.mark.xdist_group("firestore")

keys = Keys()


class TestUntilBlocked(HandlerSuite):
    steps: int | None = None

    @pytest.fixture(autouse=True)
    def _project(self, project: str) -> None:
        self.project = project

    async def rig(self, work: Work) -> Rig:
        return FunctionRig(work.app, self.project, keys, self.steps)


class TestStepByStep(TestUntilBlocked):
    steps = 1
