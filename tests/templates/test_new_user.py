"""What the README tells a new user to do, read from there and done in an empty folder: new, run, kill, run again, look;
then approve on the page, and by the link that is mailed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.components import requires_component

requires_component("click", hint="pip install -e '.[dev]'")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def told(first: str) -> tuple[list[list[str]], str]:
    """The commands of the README's block that begins so, and the folder to be in after the first of them."""
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    block = next(one for one in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if first in one)
    new, *rest = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert new[-3:-1] == ["&&", "cd"]
    commands = [new[:-3], *rest]
    assert all(command[0] == "everstep" for command in commands)
    return [command[1:] for command in commands], new[-1]


@contextmanager
def served(folder: Path, dev: list[str], **variables: str) -> Iterator[str]:
    """The development server as the README starts it, at any port but its own; yields its address."""
    serving = process(folder, *dev, "--port", "0", **variables)
    try:
        assert serving.stderr is not None
        yield serving.stderr.readline().split()[-1]
    finally:
        serving.kill()
        serving.communicate(timeout=20)


def test_new_run_kill_and_run_again(tmp_path: Path) -> None:
    (new, run, tree, dev), place = told("everstep new countdown demo && cd demo\n")
    everstep(tmp_path, *new)
    folder = tmp_path / place
    log = folder / "notifications.log"
    running = process(folder, *run)
    for _ in range(3000):
        if log.exists() and len(log.read_text().splitlines()) >= 2:
            break
        time.sleep(0.01)
    running.kill()
    running.communicate(timeout=20)
    assert 2 <= len(log.read_text().splitlines()) < 6

    assert "counted down from 5" in everstep(folder, *run)
    told_of = dict(line.split() for line in log.read_text().splitlines())
    assert list(told_of.values()) == ["5", "4", "3", "2", "1", "Done"]
    assert "c1" in everstep(folder, *tree)
    drawn = json.loads(everstep(folder, *tree, "--json"))
    assert [one["args"][0] for one in drawn["children"] if one["kind"] == "step"] == list(told_of.values())
    with served(folder, dev) as url, urllib.request.urlopen(url, timeout=20) as page:
        assert "<!doctype html>" in page.read().decode().lower()


@pytest.mark.browser
def test_approve_on_the_page_and_by_the_link(tmp_path: Path, browser: Chrome) -> None:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    (new, start, dev), place = told("everstep new approval expenses && cd expenses\n")
    everstep(tmp_path, *new)
    folder = tmp_path / place
    everstep(folder, *start)
    everstep(folder, "start", "app:app", "expense", "ben", "990000", "--id", "e3")
    with served(folder, dev, EVERSTEP_SECRET="at least sixteen bytes") as url:

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
        wait(".item", "e1", click)
        wait(".op", "open", click)
        wait("form.settle textarea", act=lambda one: one.send_keys("true"))
        wait("form.settle .go", act=click)
        wait(".head", "done")

        line = next(line for line in (folder / "mail.log").read_text().splitlines() if "ben" in line)
        token = line.rpartition("/approve/")[2]
        browser.get(f"{url}approve/{token}")
        wait("button", "Decline", click)
        wait("body", "is recorded")

    assert json.loads(everstep(folder, "get", "e1", "--json"))["value"] == "payment-e1.3"
    done = json.loads(everstep(folder, "run", "app:app", "expense", "ben", "990000", "--id", "e3", "--json"))
    assert done["value"] == "declined"
