"""The embedded runtime in bad weather."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from everstep import App, Context, Runtime
from everstep.local import Event


def test_a_mistake_of_ours_is_said_and_does_not_spin(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception in a delivery is told and waited out; the run is kept and goes on once it is mended."""
    app = App("app")

    @app.workflow
    async def hello(ctx: Context) -> str:
        return "hello"

    events: list[Event] = []

    async def play() -> None:
        async with Runtime(app, f"sqlite:///{tmp_path / 'db'}", on_event=events.append) as runtime:
            whole = runtime.driver.deliver

            async def broken(*_: object, **__: object) -> None:
                raise NameError("half an edit")

            runtime.driver.deliver = broken  # type: ignore[assignment,method-assign]
            await runtime.client.start(hello, id="h")
            driving = asyncio.ensure_future(runtime.drive("h"))
            await asyncio.sleep(0.3)
            assert len([event for event in events if event.kind == "trouble"]) == 1
            runtime.driver.deliver = whole  # type: ignore[method-assign]
            await driving
            assert await runtime.client.handle("h").result() == "hello"

    asyncio.run(asyncio.wait_for(play(), 30))
    assert "half an edit" in caplog.text
