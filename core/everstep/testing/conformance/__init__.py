"""Conformance suites: subclass one under pytest, say how to open yours, and every test runs against it.

    from everstep.testing.conformance import StoreSuite

    class TestMyStore(StoreSuite):
        async def open(self):
            return MyStore(...)          # fresh and empty

Call `pytest.register_assert_rewrite("everstep.testing.conformance")` in your conftest.py before the import, and a
failed assertion shows its values. Stores, wakers and handlers each have one; `differential` compares a store with the
oracle.
"""

from __future__ import annotations

from .handlers import HandlerSuite
from .stores import StoreSuite
from .wakers import Rig, WakerSuite

__all__ = ["HandlerSuite", "Rig", "StoreSuite", "WakerSuite"]
