"""System 37 on Google Cloud: the template as it is deployed plays, and its page shows each move from Firestore."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from google.cloud import firestore

from tests.components import requires_component
from tests.templates_by_path import TEMPLATES

from .loop import Loop

requires_component("selenium", hint="pip install -e '.[test]'")

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.xdist_group("firestore"), pytest.mark.browser]


def staged(folder: Path) -> Path:
    """The template's files as `deploy.sh` puts them together."""
    requires_component("click")
    made, stage = folder / "demo", folder / "stage"
    command = [sys.executable, "-m", "everstep.cli", "new", "chess", str(made), "--platform", "gcp"]
    subprocess.run(command, check=True, capture_output=True)
    listed = subprocess.run(
        ["bash", "-c", f'source {made}/gcp/function.sh && printf "%s\\n" "${{FILES[@]}}"'],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    stage.mkdir()
    for name in listed:
        copy: Callable[..., Any] = shutil.copytree if (made / name).is_dir() else shutil.copy
        copy(made / name, stage / Path(name).name)
    return stage


def wait(browser: Chrome, condition: Callable[[], Any], seconds: float = 30) -> Any:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, seconds, 0.05, [StaleElementReferenceException]).until(lambda _: condition())


def text(browser: Chrome, css: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0]).textContent", css))


def rules(emulator: str, project: str) -> None:
    """Put the template's rules into the emulator, which knows none by itself."""
    content = (TEMPLATES / "chess" / "gcp" / "firestore.rules").read_text()
    body = {"rules": {"files": [{"name": "firestore.rules", "content": content}]}}
    request = urllib.request.Request(
        f"http://{emulator}/emulator/v1/projects/{project}:securityRules",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method="PUT",
    )
    urllib.request.urlopen(request, timeout=10).close()


def test_the_page_shows_each_move_of_the_deployed_template(
    browser: Chrome, emulator: str, project: str, tmp_path: Path
) -> None:
    rules(emulator, project)
    address = f"http://{emulator}/v1/projects/{project}/databases/(default)/documents/boards/live"
    loop = Loop(emulator, project, tmp_path, source=staged(tmp_path), duplicates=0, timeout=10)
    try:
        with urllib.request.urlopen(f"{loop_page(loop)}", timeout=30) as answer:
            served = answer.read().decode()
        assert "documents/boards/live" in served, "the page knows where its document is"
        assert "https://firestore.googleapis.com/v1/projects/" in served

        browser.get(f"{loop.url}/board?every=50&document={quote(address)}")
        assert "Waiting" in text(browser, "#state")
        loop.start("chess", "series", 1, 0.2, 8)
        wait(browser, lambda: text(browser, "#title") == "Game 1")
        seen = wait(browser, lambda: text(browser, "#state").startswith("Move") and text(browser, "#state"))
        wait(browser, lambda: text(browser, "#state") not in ("", seen))
        assert browser.execute_script("return document.querySelectorAll('#board > div').length") == 64
        assert browser.execute_script("return document.querySelectorAll('#board > .last').length") == 2
        wait(browser, lambda: text(browser, "#title") == "Game 2")
        shown = wait(browser, lambda: browser.execute_script("return document.getElementById('board').ariaLabel"))
        assert shown.count("/") == 7, "whoever cannot see the board hears its position"
        problems = [entry for entry in browser.get_log("browser") if "404" not in entry["message"]]
        assert problems == [], "a document that is not there yet is no trouble"
    finally:
        loop.close()


def loop_page(loop: Loop) -> str:
    """The page's address, once the function serves it."""
    loop.until(lambda: loop.call("GET", "/promises")[0] == 200)
    return f"{loop.url}/board"


def test_the_page_says_what_is_wrong_and_recovers(browser: Chrome, emulator: str, project: str, tmp_path: Path) -> None:
    page = (TEMPLATES / "chess" / "board" / "index.html").as_uri()
    browser.get(page)
    wait(browser, lambda: "?document=" in text(browser, "#state"))
    rules(emulator, project)
    address = f"http://{emulator}/v1/projects/{project}/databases/(default)/documents/boards"
    browser.get(f"{page}?every=50&document={quote(address + '/nothing/below/here')}")
    wait(browser, lambda: "trying again" in text(browser, "#state"))
    fen = "8/5k2/8/8/8/8/4K2Q/8 w - - 0 1"
    picture = {"game": 7, "ply": 90, "move": "h3h2", "fen": fen, "result": "1-0"}
    firestore.Client(project=project).document("boards/live").set(picture)
    browser.get(f"{page}?every=50&document={quote(address + '/live')}")
    wait(browser, lambda: text(browser, "#state") == "Game over: 1-0")
    men = browser.execute_script(
        "return [...document.querySelectorAll('#board > div')]"
        ".filter(one => one.textContent).map(one => one.dataset.square + one.textContent)"
    )
    assert men == ["f7♚", "e2♔", "h2♕"]


def test_the_rules_let_everybody_see_the_board_and_nothing_else(emulator: str, project: str) -> None:
    rules(emulator, project)
    firestore.Client(project=project).document("boards/live").set({"game": 1})
    firestore.Client(project=project).document("everstep/:secret").set({"row": "x"})
    root = f"http://{emulator}/v1/projects/{project}/databases/(default)/documents"

    def ask(method: str, path: str, body: Any = None) -> int:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{root}{path}", data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert ask("GET", "/boards/live") == 200
    assert ask("GET", "/boards") == 403
    assert ask("GET", "/everstep/:secret") == 403
    assert ask("PATCH", "/boards/live", {"fields": {"game": {"integerValue": "2"}}}) == 403
    assert ask("DELETE", "/boards/live") == 403
