"""What the README tells a new user to do, done in an empty folder: new, run, kill, run again, look; then approve on the
page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.components import requires_component

requires_component("click", hint="pip install -e '.[dev]'")

if TYPE_CHECKING:
    from collections.abc import Callable

    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement


def everstep(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "everstep.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def process(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "everstep.cli", *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_new_run_kill_and_run_again(tmp_path: Path) -> None:
    everstep(tmp_path, "new", "countdown", "demo")
    folder = tmp_path / "demo"
    log = folder / "notifications.log"
    running = process(folder, "run", "app:app", "countdown", "5", "--id", "c1")
    for _ in range(3000):
        if log.exists() and len(log.read_text().splitlines()) >= 2:
            break
        time.sleep(0.01)
    running.kill()
    running.communicate(timeout=20)
    assert 2 <= len(log.read_text().splitlines()) < 6

    assert "counted down from 5" in everstep(folder, "run", "app:app", "countdown", "5", "--id", "c1")
    tree = json.loads(everstep(folder, "tree", "c1", "--json"))
    assert [one["args"][0] for one in tree["children"] if one["kind"] == "step"] == ["5", "4", "3", "2", "1", "Done"]
    assert "c1" in everstep(folder, "tree", "c1")


@pytest.mark.browser
def test_approve_on_the_page_and_by_the_link(tmp_path: Path, browser: Chrome) -> None:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    everstep(tmp_path, "new", "approval", "mine")
    folder = tmp_path / "mine"
    everstep(folder, "start", "app:app", "expense", "kim", "420000", "--id", "e2")
    everstep(folder, "start", "app:app", "expense", "ben", "990000", "--id", "e3")
    serving = process(folder, "dev", "app:app", "--port", "0", EVERSTEP_SECRET="at least sixteen bytes")
    try:
        assert serving.stderr is not None
        url = serving.stderr.readline().split()[-1]

        def wait(css: str, text: str = "", act: Callable[[WebElement], Any] = bool) -> None:
            """Act on what is there; the page may draw it anew between the look and the touch."""

            def found(_: object) -> bool:
                for one in browser.find_elements(By.CSS_SELECTOR, css):
                    if text in one.text:
                        act(one)
                        return True
                return False

            WebDriverWait(browser, 20, 0.05, ignored_exceptions=[StaleElementReferenceException]).until(found)

        def click(one: WebElement) -> None:
            one.click()

        browser.get(url)
        wait(".item", "e2", click)
        wait(".op", "open", click)
        wait("form.settle textarea", act=lambda one: one.send_keys("true"))
        wait("form.settle .go", act=click)
        wait(".head", "done")

        line = next(line for line in (folder / "mail.log").read_text().splitlines() if "ben" in line)
        token = line.rpartition("/approve/")[2]
        browser.get(f"{url}approve/{token}")
        wait("button", "Decline", click)
        wait("body", "is recorded")
    finally:
        serving.kill()
        serving.communicate(timeout=20)

    assert json.loads(everstep(folder, "get", "e2", "--json"))["value"] == "payment-e2.3"
    done = json.loads(everstep(folder, "run", "app:app", "expense", "ben", "990000", "--id", "e3", "--json"))
    assert done["value"] == "declined"
