"""A process that works on one run and, told so, kills itself by SIGKILL at a named moment (see `run_process`)."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from everstep import App, Runtime
from everstep.local import Event
from tests.systems.scaffold import World


async def main(order: dict[str, Any]) -> Any:
    module, _, attribute = order["program"].partition(":")
    program = importlib.import_module(module)
    app: App = getattr(program, attribute or "app")
    folder = Path(order["folder"])
    world = app.provide(World(folder))
    prepare = getattr(program, "prepare", None)
    if prepare is not None:
        prepare(folder)
    kill_at, until = order.get("kill_at"), order.get("until")
    seen: dict[str, int] = {}
    enough = asyncio.Event()

    def on_event(event: Event) -> None:
        seen[event.kind] = seen.get(event.kind, 0) + 1
        if [event.kind, seen[event.kind]] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if event.kind == "settled" and until is not None and world.count(until[0]) >= until[1]:
            enough.set()

    url = f"sqlite:///{folder / 'store.db'}"
    options = {
        name: order[name] for name in ("steps_per_invocation", "concurrency", "member", "threads") if name in order
    }
    async with Runtime(app, url, on_event=on_event, **options) as runtime:
        if until is None:
            run = order["run"]
            handle = await runtime.run(run["workflow"], *run["args"], id=run["id"])
            return await handle.result(timeout=0)
        serving = asyncio.create_task(runtime.serve())
        await enough.wait()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return None


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(sys.argv[1]))), default=asdict))
