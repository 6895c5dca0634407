"""A step whose holder is gone is closed by whoever comes by: the collector, in the middle of something else."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from everstep import App, Codec, Retry, current_step
from everstep.steps import run_step

app = App("abandoned")


@app.step
async def waits() -> str:
    await asyncio.Future()
    return "never"


def begun(context: contextvars.Context, id: str) -> Any:
    """A step under way, in a context of its own."""
    step = run_step(app, Codec(), app.info(waits), id, 1, (), {}, retry=Retry())
    context.run(step.send, None)
    return step


@pytest.fixture
def loop() -> Any:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)
    loop.close()


def test_it_leaves_the_step_that_runs_there_alone(loop: Any) -> None:
    elsewhere, here = contextvars.copy_context(), contextvars.copy_context()
    gone, running = begun(elsewhere, "r.1"), begun(here, "r.2")
    here.run(gone.close)

    assert here.run(current_step).id == "r.2"
    here.run(running.close)
    with pytest.raises(LookupError):
        here.run(current_step)


def test_its_end_is_no_failure_of_the_step(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is described, encoded or imported: that is no time for it."""
    monkeypatch.setattr("everstep.steps._failed", lambda *_: pytest.fail("it was taken for a failure"))
    begun(contextvars.copy_context(), "r.1").close()
