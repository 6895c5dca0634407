"""The whole suite on this interpreter, then tests/core on every other one that works.

The core must behave the same from 3.11 to 3.14 (await trees look into asyncio's own callbacks, rule P5), so each
interpreter found gets a small environment of its own under .venvs/. At the end every skipped test is listed with its
reason, because a suite that skips in silence proves less than it seems to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import components  # noqa: E402

NO_TESTS = 5
INTERRUPTED = 2


class Interpreter(NamedTuple):
    version: str
    path: str


def interpreters() -> list[Interpreter]:
    answer = subprocess.run(
        ["sh", str(ROOT / "tools" / "pythons.sh"), "all"], stdout=subprocess.PIPE, text=True, check=True
    )
    return [Interpreter(*line.split(" ", 1)) for line in answer.stdout.splitlines()]


def run_pytest(python: str, arguments: list[str], report: Path, role: str) -> int:
    environment = {**os.environ, "EVERSTEP_TEST_REPORT": str(report), "EVERSTEP_TEST_ROLE": role}
    environment.pop("PYTHONPATH", None)
    return subprocess.run([python, "-m", "pytest", *arguments], cwd=ROOT, env=environment, check=False).returncode


def print_skips(reports: dict[str, Path]) -> None:
    total = 0
    for label, path in reports.items():
        skips = json.loads(path.read_text())["skipped"] if path.is_file() else []
        total += len(skips)
        for (where, reason), count in Counter((s["where"], s["reason"]) for s in skips).items():
            print(f"skipped on {label}: {where}{f' ({count} times)' if count > 1 else ''}: {reason}")
    print(f"tests skipped: {total}" if total else "tests skipped: none")


def main(arguments: list[str]) -> int:
    main_only = "--main-only" in arguments
    arguments = [argument for argument in arguments if argument != "--main-only"]
    workers = os.environ.get("WORKERS") or "2"
    parallel = ["-n", workers, "--dist", "worksteal"] if workers != "0" else []
    current = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = interpreters()
    others = [] if main_only else [one for one in found if one.version != current]
    print(f"interpreters found: {', '.join(f'{one.version} ({one.path})' for one in found)}")
    print(f"everything on {current}" + "".join(f", tests/core on {one.version}" for one in others), flush=True)
    components.ensure_all()

    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        # Two runs, each with the distribution it needs: emulators are started once for the tests that share one.
        runs = [
            (current, ["--ignore=tests/adapters", "--ignore=tests/gateway"], "worksteal"),
            (f"{current}, adapters and gateway", ["tests/adapters", "tests/gateway"], "loadgroup"),
        ]
        if any((ROOT / argument.split("::")[0]).exists() for argument in arguments):
            runs = [(current, [], "loadgroup")]
        reports = {}
        status = 0
        for label, paths, spread in runs:
            reports[label] = Path(folder) / f"{label}.json"
            print(f"\n== {label}", flush=True)
            # Who waits for an emulator does not work: one more of those than of the others.
            count = str(int(workers) + 1) if spread == "loadgroup" and workers.isdecimal() else workers
            split = ["-n", count, "--dist", spread] if workers != "0" else []
            status = run_pytest(sys.executable, [*split, *paths, *arguments], reports[label], "main")
            if status and not (status == NO_TESTS and arguments):
                failed.append(label)
            if status == INTERRUPTED:
                break
        for one in others if status != INTERRUPTED else []:
            print(f"\n== tests/core on {one.version}", flush=True)
            environment = Path(".venvs") / one.version
            setup = [
                one.path,
                str(ROOT / "tools" / "environment.py"),
                str(environment),
                "--extras",
                "dev,crypto,test-core",
            ]
            if subprocess.run(setup, check=False).returncode:
                failed.append(f"{one.version} (its environment)")
                continue
            reports[one.version] = Path(folder) / f"{one.version}.json"
            python = str(ROOT / environment / "bin" / "python")
            status = run_pytest(python, [*parallel, "tests/core", *arguments], reports[one.version], "core")
            # A selection (-k, a path) may leave nothing to run here; without one, nothing run is a failure.
            if status and not (status == NO_TESTS and arguments):
                failed.append(one.version)
        print()
        print_skips(reports)
    print(f"failed on: {', '.join(failed)}" if failed else f"passed on: {', '.join(reports)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
