"""`make installed`: the wheel in clean environments, each with one extra alone.

Builds the wheel, then for each extra an environment from nothing: the wheel and that extra are installed, everything it
is for is imported and used a little (tools/smoke.py). Where nothing but the wheel was installed, the tests of the core
then run against it; `--tests` runs those of each platform too. An environment lies under .venvs/installed.

    python tools/installed.py [--tests] [EXTRA ...]       `none` is the wheel alone
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.smoke import OPENS  # noqa: E402

SMOKE = ["test_kernel_*.py", "test_engine_*.py", "test_codec.py", "test_sqlite.py", "test_crash_everywhere.py"]
"""Of tests/core: what shows that an installation is whole."""


def run(command: list[str | Path], *, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command without what this process has on its path. Raises SystemExit where it fails."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment, text=True, capture_output=quiet, check=False
    )
    if done.returncode:
        print(done.stdout or "", done.stderr or "", sep="\n", file=sys.stderr)
        raise SystemExit(f"failed: {' '.join(map(str, command))}")
    return done


def build(folder: Path) -> Path:
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, "."])
    (wheel,) = folder.glob("everstep-*.whl")
    return wheel


def environment(extra: str) -> Path:
    """The interpreter of a clean environment."""
    folder = ROOT / ".venvs" / "installed" / (extra or "none")
    venv.create(folder, with_pip=True, clear=True)
    return folder / "bin" / "python"


def install(python: Path, wheel: Path, extras: str) -> None:
    wanted = f"everstep[{extras}] @ {wheel.as_uri()}" if extras else str(wheel)
    run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted])


def try_out(wheel: Path, extra: str, *, tests: bool) -> None:
    python = environment(extra)
    install(python, wheel, extra)
    told = json.loads(run([python, "-I", ROOT / "tools" / "smoke.py", extra], quiet=True).stdout.splitlines()[-1])
    if not Path(told["from"]).is_relative_to(python.parent.parent):
        raise SystemExit(f"{extra or 'none'}: everstep came from {told['from']}")
    print(f"{extra or 'none'}: {len(told['imported'])} modules imported", flush=True)
    chosen = (
        [path for pattern in SMOKE for path in sorted((ROOT / "tests" / "core").glob(pattern))] if not extra else []
    )
    if tests and (ROOT / "tests" / "adapters" / extra).is_dir() and extra:
        chosen = [ROOT / "tests" / "adapters" / extra]
    if chosen:
        install(python, wheel, "dev,crypto,test-core" + (f",test-{extra}" if extra else ""))
        run([python, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *chosen])


def main() -> int:
    parser = argparse.ArgumentParser(description="Try the wheel in clean environments, each with one extra alone.")
    parser.add_argument("extras", nargs="*", help=f"of: none, {', '.join(filter(None, OPENS))}; all of them by default")
    parser.add_argument("--tests", action="store_true", help="run the tests of each platform against its installation")
    given = parser.parse_args()
    extras = ["" if one == "none" else one for one in given.extras] or list(OPENS)
    for unknown in set(extras) - set(OPENS):
        parser.error(f"no extra {unknown!r}")
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        for extra in extras:
            try_out(wheel, extra, tests=given.tests)
    return 0


if __name__ == "__main__":
    sys.exit(main())
