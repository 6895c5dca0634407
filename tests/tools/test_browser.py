"""The browser of the tests renders a page and runs its script, or the test says what to install."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.mark.browser
def test_a_page_renders_and_its_script_runs(browser: Chrome) -> None:
    browser.get("data:text/html,<title>before</title><p>text</p><script>document.title = 40 + 2</script>")

    assert browser.title == "42"
    assert browser.find_element("tag name", "p").text == "text"
    assert browser.get_log("browser") == []
