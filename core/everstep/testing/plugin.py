"""The pytest plugin: the fixture `everstep`, and a failed test's last events in its report.

Loaded by pytest at every start, so it imports nothing of Everstep until a test asks for it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from everstep.registry import App, Workflow

    from .crash import Report
    from .simulation import Simulation

_SHOWN = 40


class Kit:
    """What the fixture `everstep` is: simulations whose last events a failed test shows, and crash_everywhere."""

    def __init__(self) -> None:
        self.simulations: list[Simulation] = []

    def simulation(self, app: App, seed: int = 0, **options: Any) -> Simulation:
        """A `Simulation`; arguments as there."""
        from .simulation import Simulation

        made = Simulation(app, seed, **options)
        self.simulations.append(made)
        return made

    def crash_everywhere(self, app: App, workflow: Workflow[..., Any] | str, *args: Any, **options: Any) -> Report:
        """`crash_everywhere`; arguments and errors as there."""
        from .crash import crash_everywhere

        return crash_everywhere(app, workflow, *args, **options)


@pytest.fixture
def everstep() -> Kit:
    """A simulated platform on a virtual clock: `everstep.simulation(app)`, `everstep.crash_everywhere(app, order)`."""
    return Kit()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.failed:
        kit = getattr(item, "funcargs", {}).get("everstep")
        if isinstance(kit, Kit):
            for number, sim in enumerate(kit.simulations, 1):
                title = "everstep" if len(kit.simulations) == 1 else f"everstep, simulation {number}"
                report.sections.append((f"last events of {title}", sim.trace(_SHOWN)))
    return report
