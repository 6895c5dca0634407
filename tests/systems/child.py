"""A process that works on one run and, told so, kills itself by SIGKILL at a named moment (see `run_process`)."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from everstep import App, Runtime
from everstep.local import Event
from tests.systems.scaffold import World


async def main(order: dict[str, Any]) -> Any:
    module, _, attribute = order["program"].partition(":")
    app: App = getattr(importlib.import_module(module), attribute or "app")
    folder = Path(order["folder"])
    app.provide(World(folder))
    seen: dict[str, int] = {}

    def on_event(event: Event) -> None:
        seen[event.kind] = seen.get(event.kind, 0) + 1
        if order["kill_at"] is not None and [event.kind, seen[event.kind]] == order["kill_at"]:
            os.kill(os.getpid(), signal.SIGKILL)

    runtime = Runtime(
        app,
        f"sqlite:///{folder / 'store.db'}",
        steps_per_invocation=order["steps_per_invocation"],
        on_event=on_event,
    )
    async with runtime:
        handle = await runtime.run(order["workflow"], *order["args"], id=order["id"])
        return await handle.result(timeout=0)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
