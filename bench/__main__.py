"""`python -m bench`: measure every row of the table of costs, print it, write it down, compare with the last run.

Nothing here fails on a time. Counts are asserted by tests/core/test_budgets.py.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from everstep import EverstepError

from . import fanin, imports, replay, requests, sleeping, steps, warm
from .figures import FULL, QUICK, TINY, Figure, Scale

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results.json"
ROWS = (requests, replay, warm, fanin, steps, imports, sleeping)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def committed() -> dict[str, Any]:
    """The last committed run; empty where there is none."""
    path = RESULTS.relative_to(ROOT).as_posix()
    shown = subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        return dict(json.loads(shown.stdout))
    except ValueError:
        return {}


def table(figures: Sequence[Figure], before: dict[str, float]) -> str:
    """Budget, measured, the change, and whether it is within."""
    lines = []
    row = ""
    for figure in figures:
        if figure.row != row:
            row = figure.row
            lines.append(f"\n{row}")
        verdict = {True: "within", False: "OVER", None: ""}[figure.within]
        lines.append(
            f"  {figure.name:<62} {_number(figure.measured):>9} {figure.unit:<13} {_budget(figure):<10}"
            f" {_change(figure, before):>8} {verdict:<7} {figure.note}".rstrip()
        )
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def _budget(figure: Figure) -> str:
    if figure.budget is None:
        return ""
    return f"{'>=' if figure.least else '<='} {figure.budget:g}"


def _change(figure: Figure, before: dict[str, float]) -> str:
    last = before.get(figure.name)
    if not last:
        return "" if last is None or not figure.measured else "new"
    change = figure.measured / last - 1
    return "=" if abs(change) < 0.005 else f"{change:+.0%}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="less of everything; writes nothing unless --out is given")
    size.add_argument("--tiny", action="store_true", help="next to nothing of anything: does it run?")
    parser.add_argument("--out", type=Path, help="where to write; bench/results.json for a full run")
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="a module of bench/, repeatable")
    parser.add_argument("--date", default=datetime.datetime.now(datetime.UTC).date().isoformat())
    given = parser.parse_args(arguments)
    scale = QUICK if given.quick else TINY if given.tiny else FULL
    chosen = [module for module in ROWS if not given.only or module.__name__.rpartition(".")[2] in given.only]
    out = given.out if given.out is not None else RESULTS if scale is FULL and len(chosen) == len(ROWS) else None
    last = committed()
    before = {figure["name"]: figure["measured"] for figure in last.get("figures", [])}
    if last:
        other = "" if last["machine"] == machine() else f", on another machine: {', '.join(last['machine'].values())}"
        print(f"compared with the run of {last['date']}{other}")
    figures = measure(chosen, scale, before)
    over = [figure.name for figure in figures if figure.within is False]
    print(f"\n{len(over)} over budget{': ' if over else ''}{'; '.join(over)}")
    if out is not None:
        written = {
            "date": given.date,
            "scale": scale.name,
            "machine": machine(),
            "figures": [figure.as_json() for figure in figures],
        }
        out.write_text(json.dumps(written, indent=1) + "\n")
        print(f"written to {out}")
    return 0


def measure(modules: Sequence[Any], scale: Scale, before: dict[str, float]) -> list[Figure]:
    figures: list[Figure] = []
    for module in modules:
        began = time.perf_counter()
        found = module.run(scale)
        print(f"{table(found, before)}\n  ({time.perf_counter() - began:.0f} s)", flush=True)
        figures += found
    return figures


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EverstepError as error:
        sys.exit(f"bench: {error}")
