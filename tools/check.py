"""Every static check, all of them even after the first has failed, so that one run shows everything to mend."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

CHECKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("format", ("ruff", "format", "--check", ".")),
    ("lint", ("ruff", "check", ".")),
    ("mypy", ("mypy",)),
    ("pyright", ("pyright",)),
    ("imports", ("lint-imports", "--no-logo", "--no-cache")),
    ("gallery", ("python", "-m", "tools.gallery", "--check")),
)


def main() -> int:
    failed = []
    for name, (program, *arguments) in CHECKS:
        began = time.monotonic()
        print(f"== {name}: {program} {' '.join(arguments)}", flush=True)
        done = subprocess.run([str(BIN / program), *arguments], cwd=ROOT, check=False)
        print(f"== {name}: {'failed' if done.returncode else 'ok'} ({time.monotonic() - began:.1f} s)", flush=True)
        if done.returncode:
            failed.append(name)
    if failed:
        print("check failed:", ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
