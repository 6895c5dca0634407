"""The testing kit: a simulated platform on a virtual clock, and a run per possible crash point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .crash import Report, crash_everywhere
    from .faults import Faults
    from .simulation import Cost, SimHandle, Simulation

__all__ = ["Simulation", "crash_everywhere", "Faults", "Report", "SimHandle", "Cost"]

_HOME = {
    "Simulation": "simulation",
    "SimHandle": "simulation",
    "Cost": "simulation",
    "crash_everywhere": "crash",
    "Report": "crash",
    "Faults": "faults",
}


def __getattr__(name: str) -> Any:
    """Load a part when it is asked for: the conformance suites need none of this."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
