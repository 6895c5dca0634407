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

pytest.register_assert_rewrite("everstep.testing.conformance")  # before anything imports it


@pytest.fixture(scope="session")
def requires_component() -> Callable[..., None]:
    """`tests.components.requires_component`, for tests that prefer a fixture to an import."""
    return components.requires_component


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """A headless Chromium with a profile of its own, driven by Selenium; its console is at `get_log("browser")`."""
    components.requires_component("selenium", hint="pip install -e '.[test]'")
    found = chromium.find()
    components.requires_component("chromium", hint=chromium.HINT, present=found is not None)
    assert found is not None
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = found.chrome
    for flag in (*chromium.FLAGS, f"--user-data-dir={tmp_path / 'chromium'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=found.driver))
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()


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
