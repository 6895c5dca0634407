"""The pytest plugin: the fixture is there wherever Everstep is installed, and a failure shows what happened."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

SOURCE = """
from everstep import App, Context

app = App("shop")

@app.step
def charge(order):
    return f"paid {order}"

@app.workflow
async def buy(ctx: Context, order: str) -> str:
    await ctx.sleep(3600)
    return await ctx.run(charge, order)

def test_in_a_simulation(everstep):
    sim = everstep.simulation(app)
    assert sim.run(sim.start(buy, "o-1")) == "paid o-1"
    assert sim.executions == {"charge": EXPECTED}

def test_crashing_everywhere(everstep):
    report = everstep.crash_everywhere(app, buy, "o-1", modes=["queue"])
    assert report.result == "paid o-1"
    assert report.executions == {"charge": 2}
"""


@pytest.fixture
def written(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\naddopts = ''")
    return pytester


def test_the_fixture_runs_simulations_and_crashes(written: pytest.Pytester) -> None:
    written.makepyfile(SOURCE.replace("EXPECTED", "1"))

    written.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_a_failure_shows_the_last_events(written: pytest.Pytester) -> None:
    written.makepyfile(SOURCE.replace("EXPECTED", "7"))

    result = written.runpytest("-p", "no:cacheprovider")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*last events of everstep*", "* settled *buy-1*"])


def test_the_plugin_costs_a_session_that_does_not_use_it_nothing() -> None:
    code = "import sys, everstep.testing.plugin; print([name for name in sys.modules if name.startswith('everstep.')])"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "simulation" not in loaded
    assert "driver" not in loaded
