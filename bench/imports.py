"""What a function that wakes up pays before it does anything: imports, and what an installation weighs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from .figures import Figure, Scale, Stopwatch, in_turns

ROW = "import everstep"
ROOT = Path(__file__).resolve().parent.parent
WHEEL = 250_000
SUBJECTS = {
    "nothing": "pass",
    "asyncio": "import asyncio",
    "everstep": "import everstep",
    "App, Context, Retry": "from everstep import App, Context, Retry",
    "Runtime": "from everstep import Runtime",
}


def imported(code: str) -> float:
    """Microseconds of a new interpreter that runs `code`, from its start to its end, files in the cache."""
    with Stopwatch(1, cpu=False) as watch:
        subprocess.run([sys.executable, "-I", "-c", code], check=True)
    return watch.micros


def wheel_size() -> int | None:
    """Bytes of the wheel; None where it cannot be built here."""
    if importlib.util.find_spec("hatchling") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder]
        done = subprocess.run([*command, str(ROOT)], capture_output=True, check=False)
        sizes = [path.stat().st_size for path in Path(folder).glob("everstep-*.whl")]
        return sizes[0] if not done.returncode and sizes else None


def dependencies() -> int:
    """Packages that an installation without extras brings along."""
    required = importlib.metadata.requires("everstep") or []
    return sum("extra ==" not in one for one in required)


def run(scale: Scale) -> list[Figure]:
    for code in SUBJECTS.values():
        imported(code)  # compiled files are there from now on
    times = in_turns(scale.imports, {name: lambda _, code=code: imported(code) for name, code in SUBJECTS.items()})  # type: ignore[misc]
    took = {name: statistics.median(slices) for name, slices in times.items()}
    base = max(took["asyncio"] - took["nothing"], 1.0)
    found = []
    for name, budget in (("everstep", 1.6), ("App, Context, Retry", 1.6), ("Runtime", None)):
        own = took[name] - took["nothing"]
        note = f"{own / 1000:.0f} ms; asyncio {base / 1000:.0f} ms"
        found.append(Figure(ROW, f"import of {name}", own / base, "times asyncio", budget, note=note))
    size = wheel_size()
    if size is not None:
        found.append(Figure(ROW, "wheel", size / 1000, "KB", WHEEL / 1000))
    return [*found, Figure(ROW, "dependencies", dependencies(), "packages", 0)]
