"""The live page in a real browser: a run moves before one's eyes, a button settles what it waits for."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.components import requires_component
from tests.core.cli_support import Cli, make_cli

requires_component("selenium", hint="pip install -e '.[test]'")
requires_component("uvicorn", hint="pip install -e '.[test]'")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

pytestmark = pytest.mark.browser
EVIL = "<script>hacked=1</script><img src=x onerror=hacked=1>"


class Site:
    """A development server, and the page it serves."""

    def __init__(self, cli: Cli, browser: Chrome, **variables: str) -> None:
        self.cli = cli
        self.browser = browser
        self.process = cli.process("dev", cli.app, "--port", "0", **variables)
        assert self.process.stderr is not None
        self.url = self.process.stderr.readline().split()[-1]

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=20)

    def start(self, workflow: str, id: str, *args: Any) -> None:
        body = json.dumps({"id": id, "args": args}).encode()
        request = urllib.request.Request(f"{self.url}workflows/{workflow}", body, {"content-type": "application/json"})
        urllib.request.urlopen(request, timeout=20).close()

    def open(self, path: str = "") -> None:
        self.browser.get(self.url + path)

    def wait(self, condition: Callable[[], Any]) -> Any:
        """The first true value of a condition that the page reaches by itself."""
        from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

        ignored = (NoSuchElementException, StaleElementReferenceException)
        return WebDriverWait(self.browser, 20, 0.05, ignored_exceptions=ignored).until(lambda _: condition())

    def one(self, css: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, css)

    def texts(self, css: str) -> list[str]:
        return [element.text for element in self.all(css)]

    def row(self, text: str) -> WebElement:
        """The operation whose line holds a text."""
        return self.wait(lambda: next((row for row in self.all(".op") if text in row.text), None))

    def errors(self) -> list[Any]:
        return [entry for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return make_cli(tmp_path, monkeypatch, capsys)


@pytest.fixture
def site(cli: Cli, browser: Chrome) -> Iterator[Site]:
    made = Site(cli, browser)
    try:
        yield made
    finally:
        made.stop()


def test_a_run_moves_and_a_button_completes_it(site: Site) -> None:
    site.open()
    site.wait(lambda: "No runs yet" in site.one("#items").text)
    site.start("order", "o-17", "o-17")
    item = site.wait(lambda: site.one(".item"))
    site.wait(lambda: "waiting" in site.one(".item").text)
    assert 'order("o-17")' in item.text

    item.click()
    assert "done" in site.row("note").text
    site.row("open").click()
    box = site.wait(lambda: site.one("form.settle textarea"))
    box.send_keys("maybe")
    site.one("form.settle .go").click()
    site.wait(lambda: "not JSON" in site.one("#say").text)
    box.clear()
    box.send_keys("true")
    site.one("form.settle .go").click()

    site.wait(lambda: "done" in site.one(".head").text)
    site.wait(lambda: "done" in site.one(".item").text)
    assert '"shipped"' in site.one(".note").text
    assert site.one("#link").text == "live"
    assert not site.all("form.settle")
    assert site.errors() == []


def test_with_nothing_chosen_a_run_is_started_and_a_button_leads_to_what_it_asks(site: Site) -> None:
    site.open()
    site.wait(lambda: site.one("#start").is_displayed())
    names = [option.get_attribute("value") for option in site.all("#workflow option")]
    assert "order" in names
    assert names == sorted(names)
    site.one("#workflow option[value=order]").click()
    arguments, id, start = site.one("#start textarea"), site.one("#start input"), site.one("#start .go")
    site.wait(lambda: arguments.get_attribute("placeholder") == "arguments as JSON: id")
    id.send_keys("mine")
    arguments.send_keys("o-17")
    start.click()
    site.wait(lambda: "not JSON" in site.one("#say").text)
    arguments.clear()
    arguments.send_keys('"o-17", 3')
    start.click()
    site.wait(lambda: "order() takes 1 positional argument" in site.one("#say").text)
    arguments.clear()
    arguments.send_keys('"o-17"')
    start.click()

    site.wait(lambda: site.one(".head .id").text == "mine")
    site.wait(lambda: "Answer mine.2" in site.one(".tools").text)
    site.one(".tools .go").click()
    box = site.wait(lambda: site.one(".detail textarea"))
    site.wait(lambda: site.browser.switch_to.active_element == box)
    box.send_keys("true", Keys.CONTROL, Keys.ENTER)
    site.wait(lambda: "done" in site.one(".head").text)
    assert not site.one(".tools .go").is_displayed()
    assert [error for error in site.errors() if "400" not in error["message"]] == []


def test_a_countdown_grows_row_by_row_and_its_now_line_moves(site: Site) -> None:
    site.start("countdown", "c1", 3, 0.7)
    site.open("#/run/c1")
    site.row("sleeping")
    first = float(site.one("#now i").get_attribute("style").split(": ")[1].split("%")[0])
    site.wait(lambda: float(site.one("#now i").get_attribute("style").split(": ")[1].split("%")[0]) != first)
    site.wait(lambda: "done" in site.one(".head").text)

    assert [text.split()[2] for text in site.texts(".op .name")][:2] == ["countdown", "note"]
    assert len([text for text in site.texts(".op .name") if "note" in text]) == 3
    assert not site.one("#now i").is_displayed()


def test_cancel_asks_twice_and_a_halted_run_is_continued(site: Site) -> None:
    site.start("order", "o1", "x")
    site.open("#/run/o1")
    site.row("open")
    button = site.one(".tools .line .btn")
    button.click()
    assert "again" in button.text
    assert "waiting" in site.one(".head").text
    button.click()
    site.wait(lambda: "cancelled" in site.one(".head").text)

    site.start("order", "o2", "y")
    site.open("#/run/o2")
    site.row("open")
    site.cli("halt", "o2", "for a look")
    site.wait(lambda: "for a look" in site.one(".note").text)
    site.one(".tools .line .go").click()
    site.wait(lambda: "halted" not in site.one(".head").text)


def test_reject_takes_a_plain_text(site: Site) -> None:
    site.start("order", "o1", "x")
    site.open("#/run/o1")
    site.row("open").click()
    site.wait(lambda: site.one("form.settle textarea")).send_keys("no stock today")
    next(one for one in site.all("form.settle .btn") if one.text == "Reject").click()

    site.wait(lambda: "no stock today" in site.one(".note").text)
    assert "failed" in site.one(".head").text


def test_hostile_ids_and_values_stay_text(site: Site) -> None:
    site.start("echo", EVIL, EVIL, {"<b>": EVIL})
    site.open()
    item = site.wait(lambda: site.one(".item"))
    assert EVIL in item.text
    site.wait(lambda: "done" in site.one(".item").text)
    site.one(".item").click()
    site.row("echo").click()
    site.wait(lambda: EVIL in site.one(".detail pre").text)

    assert EVIL in site.one("h2").text
    assert site.browser.execute_script("return window.hacked") is None
    assert site.all("#main img, #main script, #main b") == []
    assert site.errors() == []


def test_the_policy_stops_a_script_that_is_not_the_pages(site: Site) -> None:
    site.open()
    site.wait(lambda: site.one("#items p"))
    site.browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s);"
    )

    assert site.browser.execute_script("return window.hacked") is None
    assert "Content Security Policy" in str(site.errors())


def test_awkward_ids_open(site: Site) -> None:
    for id in ("a/b tree", "a/tree", "100%", "ünï #1?x=y"):
        site.start("echo", id)
        site.open()
        site.wait(lambda id=id: next((one for one in site.all(".item") if id in one.text), None)).click()
        site.wait(lambda id=id: site.one("h2").text == id)
        site.wait(lambda: "done" in site.one(".head").text)


def test_filters_and_more(site: Site) -> None:
    for n in range(101):
        site.start("echo", f"e{n:03}")
    site.start("order", "waiting-one", "x")
    site.open()
    site.wait(lambda: len(site.all(".item")) == 100)
    assert site.one("#first").text == "The first 100 by id; there are more."
    site.one("#more").click()
    site.wait(lambda: len(site.all(".item")) == 102)
    assert not site.one("#more").is_displayed()
    assert not site.one("#first").is_displayed()
    site.one("#prefix").send_keys("e09")
    site.wait(lambda: len(site.all(".item")) == 10)
    site.one("#prefix").clear()
    site.one("#prefix").send_keys("w")
    site.wait(lambda: site.texts(".item .id") == ["waiting-one"])
    site.browser.execute_script(
        "const s = document.getElementById('state'); s.value = 'rejected';"
        "s.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    site.wait(lambda: "No run fits" in site.one("#items").text)


def test_it_is_worked_by_keyboard_alone(site: Site) -> None:
    site.start("order", "o1", "x")
    site.start("echo", "e1")
    site.open()
    site.wait(lambda: len(site.all(".item")) == 2)

    def press(*keys: str) -> WebElement:
        site.browser.switch_to.active_element.send_keys(*keys)
        return site.browser.switch_to.active_element

    site.one("body").send_keys("/")
    assert site.browser.switch_to.active_element.get_attribute("id") == "prefix"
    for _ in range(5):
        if "item" in (press(Keys.TAB).get_attribute("class") or ""):
            break
    first = site.browser.switch_to.active_element
    assert press(Keys.ARROW_DOWN) != first
    if "o1" not in site.browser.switch_to.active_element.text:
        press(Keys.ARROW_UP)
    press(Keys.ENTER)
    site.row("open")
    site.browser.execute_script("document.querySelector('.op').focus()")
    press(Keys.ARROW_DOWN)
    press(Keys.ARROW_DOWN, Keys.ENTER)
    box = site.wait(lambda: site.one("form.settle textarea"))
    box.send_keys("true", Keys.CONTROL, Keys.ENTER)
    site.wait(lambda: "done" in site.one(".head").text)
    site.one("body").send_keys(Keys.ESCAPE)
    site.one("body").send_keys(Keys.ESCAPE)
    site.wait(lambda: site.browser.current_url.endswith("#/"))


def test_a_workflow_with_a_long_name_leaves_the_form_in_its_place(cli: Cli, browser: Chrome) -> None:
    path = cli.folder / f"{cli.module}.py"
    path.write_text(path.read_text().replace("def echo(", f"def {'echo_' * 40}("))
    site = Site(cli, browser)
    try:
        site.open()
        site.wait(lambda: site.one("#start").is_displayed())
        run = site.one("#run")
        assert run.get_property("scrollWidth") <= run.get_property("clientWidth")
    finally:
        site.stop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_400_pixels_and_both_colour_schemes_are_readable(site: Site, scheme: str) -> None:
    driver = site.browser
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    site.start("order", "o" + "-17" * 60, "x" * 300)
    site.start("broken", "b")
    site.open()
    site.wait(lambda: len(site.all(".item")) == 2)

    def overflow() -> int:
        return int(driver.execute_script("return document.documentElement.scrollWidth - innerWidth"))

    assert overflow() <= 0
    site.wait(lambda: site.one("#start").is_displayed())  # a run can be started here too
    next(one for one in site.all(".item") if "o-17" in one.text).click()
    site.row("open").click()
    site.wait(lambda: site.one("form.settle"))
    assert overflow() <= 0
    assert not site.one("#list").is_displayed()
    assert contrast(site, ".head .badge") >= 4.5
    assert contrast(site, ".what") >= 4.5
    assert contrast(site, ".op .meta") >= 4.5
    for badge in site.all(".op .badge"):
        assert badge.text.strip()
    site.one(".back").click()
    site.wait(lambda: site.one("#list").is_displayed())


def contrast(site: Site, css: str) -> float:
    """Of a text with what is behind it (WCAG 2)."""
    colours = site.browser.execute_script(
        """
        const el = document.querySelector(arguments[0]);
        const parse = text => text.match(/[\\d.]+/g).map(Number);
        let behind = el, back;
        do { back = parse(getComputedStyle(behind).backgroundColor); behind = behind.parentElement; }
        while (behind && back.length === 4 && back[3] === 0);
        return [parse(getComputedStyle(el).color), back];
        """,
        css,
    )

    def luminance(rgb: list[float]) -> float:
        parts = [part / 255 for part in rgb[:3]]
        parts = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted(luminance(one) for one in colours)
    return (high + 0.05) / (low + 0.05)


def test_where_events_cannot_be_held_it_polls(site: Site) -> None:
    site.browser.execute_cdp_cmd("Network.enable", {})
    site.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/events*"]})
    site.open()
    site.wait(lambda: site.one("#link").text == "polling")
    site.start("order", "o1", "x")
    site.wait(lambda: site.one(".item")).click()
    site.row("open").click()
    site.wait(lambda: site.one("form.settle textarea")).send_keys("true")
    site.one("form.settle .go").click()
    site.wait(lambda: "done" in site.one(".head").text)


def test_a_server_that_went_away_is_said_and_found_again(cli: Cli, browser: Chrome) -> None:
    site = Site(cli, browser)
    try:
        site.open()
        site.wait(lambda: site.one("#link").text == "live")
    finally:
        site.stop()
    site.wait(lambda: site.one("#link").text == "offline")
    port = site.url.rstrip("/").rsplit(":", 1)[1]
    again = cli.process("dev", cli.app, "--port", port)
    try:
        site.wait(lambda: site.one("#link").text == "live")
    finally:
        again.kill()
        again.communicate(timeout=20)


def test_a_token_is_asked_for_and_kept(cli: Cli, browser: Chrome) -> None:
    site = Site(cli, browser, EVERSTEP_TOKEN="let me in")
    try:
        cli("start", cli.app, "order", "x", "--id", "o1")
        site.open()
        site.wait(lambda: site.one("#door").is_displayed())
        for text in ("wrong", "let me in"):
            site.wait(lambda: site.one("#token").is_displayed())
            site.one("#token").clear()
            site.one("#token").send_keys(text, Keys.ENTER)
        site.wait(lambda: site.one(".item").is_displayed())
        browser.refresh()
        site.wait(lambda: site.one(".item").is_displayed())
    finally:
        site.stop()
