"""Fixtures and reporting shared by all tests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests import components
from tools.components import browser as chromium

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# A test must not fail because the machine was busy: hypothesis measures time unless told not to.
hypothesis.settings.register_profile("everstep", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("everstep")

_PARALLEL = {Path(__file__).parent / name for name in ("core", "conformance", "systems")}

pytest.register_assert_rewrite("everstep.testing.conformance")  # before anything imports it


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Folders of tests that need nothing from outside are run by two workers where nobody says how (-n 0: none).

    Single files are run without, because a worker takes a second to start and keeps the debugger away.
    """
    options = config.option
    if "PYTEST_XDIST_WORKER" in os.environ or options.usepdb or options.collectonly:
        return  # a worker comes by here too
    if getattr(options, "numprocesses", 0) is not None or options.dist != "no":
        return
    if config.args and all(Path(argument).resolve() in _PARALLEL for argument in config.args):
        options.numprocesses, options.dist = 2, "worksteal"


@pytest.fixture(scope="session")
def requires_component() -> Callable[..., None]:
    """`tests.components.requires_component`, for tests that prefer a fixture to an import."""
    return components.requires_component


@pytest.fixture(scope="session")
def _chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A headless Chromium, driven by Selenium: one for all tests, for it takes a second and a half to start."""
    components.requires_component("selenium", hint="pip install -e '.[test]'")
    found = chromium.find()
    components.requires_component("chromium", hint=chromium.HINT, present=found is not None)
    assert found is not None
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = found.chrome
    for flag in (*chromium.FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=found.driver))
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def browser(_chromium: Chrome) -> Iterator[Chrome]:
    """A window of its own; cookies, and what the servers of this test had stored, go with it. Its console is at
    `get_log("browser")`."""
    driver = _chromium
    resting = driver.current_window_handle
    driver.switch_to.new_window("window")
    driver.get_log("browser")
    try:
        yield driver
    finally:
        driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        for window in set(driver.window_handles) - {resting}:
            driver.switch_to.window(window)
            origin = driver.execute_script("return location.origin")
            driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
            driver.close()
        driver.switch_to.window(resting)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Leave the skipped tests where tools/run_tests.py collects them over all interpreters."""
    target = os.environ.get("EVERSTEP_TEST_REPORT")
    if not target:
        return
    skipped = []
    for report in terminalreporter.stats.get("skipped", []):
        detail = report.longrepr
        reason = detail[2] if isinstance(detail, tuple) else str(detail)
        skipped.append({"where": report.nodeid, "reason": reason.removeprefix("Skipped: ")})
    Path(target).write_text(json.dumps({"skipped": skipped}))
