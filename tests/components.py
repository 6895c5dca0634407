"""Tests that need something from outside: a package, a program, a service.

A missing component skips the test and says how to get it. In CI, where everything installable is installed first, the
same absence is a failure: a suite must not turn green by losing its dependencies. Only what no package registry offers
(a vendor's cloud, a hardware token) may skip there, and is declared with installable=False.
"""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def runs_everything() -> bool:
    """False on the additional interpreters, which get the small environment: what is missing there runs elsewhere."""
    return os.environ.get("EVERSTEP_TEST_ROLE", "main") == "main"


def requires_component(name: str, *, installable: bool = True, hint: str = "", present: bool | None = None) -> None:
    """Skip the calling test, fixture or module when a component is missing; fail instead in CI if it is installable.

    `name` is an importable module or a program on the PATH; pass `present` where only the caller can tell.
    """
    if present is None:
        present = importlib.util.find_spec(name) is not None or shutil.which(name) is not None
    if present:
        return
    reason = f"{name} is missing" + (f": {hint}" if hint else "")
    if installable and in_ci() and runs_everything():
        pytest.fail(f"{reason} (installable, so that CI must have it)", pytrace=False)
    pytest.skip(reason, allow_module_level=True)
