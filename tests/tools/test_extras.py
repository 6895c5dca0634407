"""Each extra alone is enough for what it is for, and none needs what only another brings.

The wheel is used as it would be installed. Instead of an environment for each extra, which `make installed` builds, the
one that runs the tests is seen through a sieve: what the extra does not require, directly or by others, is not there.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.components import requires_component
from tests.tools.test_wheel import wheel as wheel
from tools.smoke import OPENS

ROOT = Path(__file__).resolve().parents[2]
SIEVE = """
import sys
class Sieve:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}: {extra!r} does not bring it", name=name)
sys.meta_path.insert(0, Sieve())
sys.path.insert(0, {folder!r})
sys.argv = ["smoke.py", {extra!r}]
exec(compile(open({smoke!r}).read(), {smoke!r}, "exec"))
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(wheel: Path, extra: str) -> list[Requirement]:
    """What the wheel itself says that an extra needs."""
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    lines = archive.read(metadata).decode().splitlines()
    all_of = [Requirement(line.partition(": ")[2]) for line in lines if line.startswith("Requires-Dist: ")]
    return [one for one in all_of if one.marker is None or one.marker.evaluate({"extra": extra})]


def closure(wheel: Path, extra: str) -> set[str]:
    """Every distribution that an installation of an extra brings. Raises PackageNotFoundError where one is not here."""
    found: set[str] = set()
    pending = [(one, chosen) for chosen in ("", extra) for one in requirements(wheel, chosen)]
    seen: set[tuple[str, str]] = set()
    while pending:
        one, asked = pending.pop()
        if one.marker is not None and not one.marker.evaluate({"extra": asked}):
            continue
        name = canonical(one.name)
        for chosen in ("", *one.extras):
            if (name, chosen) in seen:
                continue
            seen.add((name, chosen))
            if name == "everstep":
                pending += [(other, chosen) for other in requirements(wheel, chosen)]
                continue
            found.add(name)
            pending += [(Requirement(other), chosen) for other in importlib.metadata.requires(name) or []]
    return found


@cache
def providers() -> dict[str, set[str]]:
    """Of each top-level module, the distributions that bring it."""
    brought = importlib.metadata.packages_distributions()
    return {name: {canonical(one) for one in by} for name, by in brought.items()}


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def smoke(folder: Path, extra: str, allowed: set[str]) -> subprocess.CompletedProcess[str]:
    ours = {"everstep", "everstep_aws", "everstep_gcp", "everstep_supabase", "everstep_cloudflare"}
    hidden = {name for name, brought in providers().items() if not brought & allowed} - ours
    code = SIEVE.format(hidden=hidden, extra=extra, folder=str(folder), smoke=str(ROOT / "tools" / "smoke.py"))
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("extra", OPENS, ids=lambda extra: extra or "none")
def test_an_extra_alone_is_enough(wheel: Path, unpacked: Path, extra: str) -> None:
    try:
        allowed = closure(wheel, extra)
    except importlib.metadata.PackageNotFoundError as error:
        requires_component(str(error.name), hint=f"pip install 'everstep[{extra}]'", present=False)
        raise
    done = smoke(unpacked, extra, allowed)

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert Path(told["from"]).is_relative_to(unpacked)
    assert set(OPENS[extra]) <= {*told["imported"], *told["only there"]}


def test_without_it_they_do_not_import(unpacked: Path) -> None:
    """The sieve holds something back."""
    done = smoke(unpacked, "dev", set())
    assert done.returncode != 0
    assert "ModuleNotFoundError" in done.stderr


def test_every_extra_for_users_is_tried() -> None:
    import tomllib

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    ours = {extra for extra in declared if not extra.startswith("test") and extra not in ("lint", "pydantic-ai")}
    assert ours == {extra for extra in OPENS if extra}
