"""What a function that wakes up pays before it does anything: imports, and what an installation weighs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from .figures import Figure, Scale, Stopwatch, in_turns

ROW = "import everstep"
ROOT = Path(__file__).resolve().parent.parent
CORE = 250_000
"""Bytes of the wheel that are the core's: what `import everstep` has to offer with no extra installed."""
OF_EXTRAS = ("cli", "http", "mcp", "models", "_templates")
_HEADERS = 76
"""Bytes that an archive spends on a file beside its name and its content."""
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


def wheel_sizes() -> dict[str, int]:
    """Bytes of the wheel and of its parts; nothing where it cannot be built here."""
    if importlib.util.find_spec("hatchling") is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder]
        done = subprocess.run([*command, str(ROOT)], capture_output=True, check=False)
        built = [shares(path) for path in Path(folder).glob("everstep-*.whl")]
        return built[0] if not done.returncode and built else {}


def shares(wheel: Path) -> dict[str, int]:
    """Bytes of a wheel: "all of it", "the core", and what an extra or a template opens, by its folder.

    The core is all that works with no extra installed, the testing kit and its own lines of the metadata included.
    """
    found = {"all of it": wheel.stat().st_size, "the core": 0}
    files = zipfile.ZipFile(wheel).infolist()
    core = [info.filename for info in files if _part(info.filename) == "the core"]
    for info in files:
        size = info.compress_size + 2 * len(info.filename) + _HEADERS
        part = _part(info.filename)
        if part == "metadata":
            part, size = "the core", size * len(core) // len(files)
        found[part] = found.get(part, 0) + size
    return found


def _part(name: str) -> str:
    top, *rest = name.split("/")
    if top.endswith(".dist-info"):
        return "metadata"
    return (
        "the core"
        if top == "everstep" and rest[0] not in OF_EXTRAS
        else "/".join((top, *rest[:1])[: 1 + (top == "everstep")])
    )


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
    for part, size in wheel_sizes().items():
        budget = CORE / 1000 if part == "the core" else None
        found.append(Figure(ROW, f"wheel, {part}", size / 1000, "KB", budget))
    return [*found, Figure(ROW, "dependencies", dependencies(), "packages", 0)]
