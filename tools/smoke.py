"""What must work where nothing is installed but the wheel and one extra: `python -I smoke.py EXTRA`.

Every module that the extra is for is imported, and the core runs a workflow that is killed off and resumed. Prints what
was imported. Knows nothing of the repository, so that it can run beside any installation.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OPENS: dict[str, tuple[str, ...]] = {
    "": ("everstep",),
    "cron": ("everstep.cron",),
    "crypto": ("everstep.crypto",),
    "dev": ("everstep.cli", "everstep.http"),
    "gateway": ("everstep.http",),
    "mcp": ("everstep.mcp", "everstep.cli.mcp"),
    "openai": ("everstep.models.openai",),
    "anthropic": ("everstep.models.anthropic",),
    "aws": ("everstep_aws", "everstep.http"),
    "gcp": ("everstep_gcp", "everstep.http"),
    "supabase": ("everstep_supabase", "everstep.http"),
    "cloudflare": ("everstep_cloudflare",),
}
"""The packages and modules an extra is for."""

OF_EXTRAS = ("everstep.cli", "everstep.http", "everstep.mcp", "everstep.models")
ELSEWHERE = ("everstep.testing.plugin", "everstep.cli.mcp")
"""Modules found beside others that are not theirs: one is for pytest to import, one is a command of another extra."""

ONLY_THERE = ("workers", "js", "pyodide")
"""What a Python Worker has and no other Python."""


def modules(extra: str) -> Iterator[str]:
    """What must be importable with an extra alone."""
    for name in OPENS[extra]:
        yield name
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{name}."):
            skipped = found.name.endswith(".__main__") or found.name in ELSEWHERE or "._templates" in found.name
            if not skipped and not (extra == "" and found.name.startswith(OF_EXTRAS)):
                yield found.name


def run_a_workflow() -> None:
    """On the embedded runtime, from one store to the next life, and everywhere it can be killed."""
    from everstep import App, Client, Context, Runtime
    from everstep.testing import crash_everywhere

    app = App("smoke")

    @app.step
    def double(number: int) -> int:
        return 2 * number

    @app.workflow
    async def twice(ctx: Context, number: int) -> int:
        first: int = await ctx.run(double, number)
        await ctx.sleep(0.01)
        return await ctx.run(double, first)

    async def live(url: str) -> None:
        async with Runtime(app, url) as runtime:
            assert await (await runtime.run(twice, 4, id="t")).result() == 16
        client = Client.open(url, app=app)
        assert (await client.tree("t")).promise.state == "resolved"
        await client.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(f"sqlite:///{Path(folder) / 'smoke.db'}"))
    report = crash_everywhere(app, twice, 4, steps_per_invocation=None, variants=("crash",))
    assert report.result == 16


def use(extra: str) -> None:
    """A little of what the extra is for."""
    match extra:
        case "":
            run_a_workflow()
        case "cron":
            from everstep.cron import next_cron

            assert next_cron("0 3 * * *", 0) == 3 * 3_600_000
        case "crypto":
            from everstep import AesGcm, Codec

            codec: Any = Codec(encryptor=AesGcm({"k": bytes(32)}, current="k"))
            assert codec.decode(codec.encode({"a": 1})) == {"a": 1}
        case "dev":
            from everstep.cli.commands import run

            assert run(["--help"]) == 0
        case _:
            pass


def main() -> int:
    extra = sys.argv[1] if len(sys.argv) > 1 else ""
    imported, absent = [], []
    for name in modules(extra):
        try:
            importlib.import_module(name)
            imported.append(name)
        except ModuleNotFoundError as error:
            if error.name not in ONLY_THERE:
                raise
            absent.append(name)
    use(extra)
    import everstep

    print(json.dumps({"from": everstep.__file__, "imported": imported, "only there": absent}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
