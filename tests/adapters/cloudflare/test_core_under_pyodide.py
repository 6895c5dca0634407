"""The core on CPython in WebAssembly: its own suite, as much of it as can be there, within about a minute."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tools.components import ROOT, workerd

from .worker import installed

pytestmark = pytest.mark.xdist_group("pyodide")


def test_the_cores_own_suite_passes_under_pyodide(capsys: pytest.CaptureFixture[str]) -> None:
    node = shutil.which("node")
    assert node is not None
    folder = installed().folder.resolve()
    plugin = "tests.adapters.cloudflare.under_pyodide"
    options = ("-q", "--tb=short", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=0")
    done = subprocess.run(
        [node, "--stack-size=5000", workerd.SOURCES / "pytest.mjs", folder, ROOT, plugin, "tests/core", *options],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    with capsys.disabled():
        print("\nthe core under Pyodide:", lines[-1] if lines else "")
        print("\n".join(line for line in lines if line.startswith("left out: ")))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 800
