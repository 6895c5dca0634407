"""Finds Chromium and its driver, and installs Debian's packages where that is ours to do.

The driver is always named by path: left to itself, Selenium would fetch one from the network. Installing is done only
by root on a machine that has apt-get, which is what CI and containers are; elsewhere the tests that need a browser
skip and say what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from tools.components import apt

HINT = "install Debian's chromium and chromium-driver, or set CHROME and CHROMEDRIVER to their paths"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--window-size=1280,900",
)


class Browser(NamedTuple):
    """Two executables that have both answered to --version."""

    chrome: str
    driver: str


def find() -> Browser | None:
    """Return the first browser and driver that run, or None."""
    chrome = next(filter(runs, chromes()), None)
    driver = next(filter(runs, drivers()), None)
    return Browser(chrome, driver) if chrome and driver else None


def chromes() -> Iterator[str]:
    if named := os.environ.get("CHROME"):
        yield named
    for name in ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser"):
        if path := shutil.which(name):
            yield path


def drivers() -> Iterator[str]:
    if named := os.environ.get("CHROMEDRIVER"):
        yield named
    if folder := os.environ.get("CHROMEWEBDRIVER"):
        yield os.path.join(folder, "chromedriver")
    for name in ("chromedriver", "/usr/lib/chromium/chromedriver", "/usr/lib/chromium-browser/chromedriver"):
        if path := shutil.which(name):
            yield path


def runs(path: str) -> bool:
    """A name on the PATH may be a stub that only tells how to install the real thing."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def ensure() -> Browser | None:
    """Return a browser, installed first if there is none and installing is ours to do. Raises Missing."""
    found = find()
    if found is None:
        apt("chromium", "chromium-driver")
        found = find()
    return found
