"""System 41: a tab of a browser as a worker, with the official TypeScript SDK and a token for its group alone."""

from __future__ import annotations

import base64
import functools
import http.server
import itertools
import json
import signal
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from everstep.clock import NEVER
from everstep.protocol import VERSION
from tests.components import requires_component
from tests.gateway.support import PROGRAMS, Dev, dev, sdks, typescript

requires_component("selenium", hint="pip install -e '.[test]'")
requires_component("jwt", hint="pip install -e '.[gateway]'")

import jwt  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("gateway-browser")]
SECRET = "a secret of at least 32 bytes, for tests"
TAB = jwt.encode({"prefix": "tab-", "groups": ["tabs"], "exp": 4_000_000_000}, SECRET, "HS256")
ADMIN = jwt.encode({"role": "admin", "exp": 4_000_000_000}, SECRET, "HS256")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the page, on a site of its own."""
    found = sdks()
    folder = tmp_path_factory.mktemp("page")
    (folder / "node_modules").symlink_to(found.modules / "node_modules")
    (folder / "page.mjs").write_text((PROGRAMS / "page.mjs").read_text())
    command = [found.esbuild, "page.mjs", "--bundle", "--format=esm", "--platform=browser", "--outfile=bundle.js"]
    subprocess.run([*command, "--log-level=error"], cwd=folder, check=True)
    (folder / "empty.html").write_text("<!doctype html>")
    (folder / "index.html").write_text('<!doctype html><script type="module" src="bundle.js"></script>')

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, page: str) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "key").write_text(SECRET)
    with dev(folder, "--jwt", "key", "--origin", page) as running:
        yield running


def request(server: Dev, path: str, token: str | None, body: Any = None, **headers: str) -> tuple[int, Any]:
    sent = {"content-type": "application/json", **headers}
    if token is not None:
        sent["authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, data, sent), timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def create(server: Dev, id: str, func: str, *args: Any) -> None:
    param = base64.b64encode(json.dumps({"func": func, "args": args, "version": 1}).encode()).decode()
    data = {"id": id, "timeoutAt": NEVER, "param": {"data": param}, "tags": {"resonate:target": "poll://any@tabs"}}
    envelope = {"kind": "promise.create", "head": {"corrId": "c", "version": VERSION}, "data": data}
    assert request(server, "/", ADMIN, envelope)[0] == 200


def open_tab(browser: Chrome, server: Dev, page: str, pid: str) -> None:
    where = {"url": server.url, "token": TAB, "group": "tabs", "pid": pid}
    browser.get(f"{page}/#{urllib.parse.urlencode(where)}")
    WebDriverWait(browser, 20, 0.05).until(lambda _: browser.title == "working")


def ran(browser: Chrome) -> list[str]:
    return (browser.execute_script("return localStorage.getItem('ran')") or "").split(";")[:-1]


def test_a_tab_works_and_goes_on_after_a_refresh(browser: Chrome, server: Dev, page: str) -> None:
    create(server, "tab-factorial-5", "factorial", 5)
    assert request(server, "/promises/tab-factorial-5?wait=0.3", ADMIN)[1]["state"] == "pending"
    browser.get(f"{page}/empty.html")
    browser.execute_script("localStorage.clear(); localStorage.setItem('stop', '2')")

    open_tab(browser, server, page, "t1")
    WebDriverWait(browser, 30, 0.05).until(lambda _: "2" in ran(browser))
    browser.execute_script("localStorage.removeItem('stop')")
    browser.refresh()

    assert request(server, "/promises/tab-factorial-5?wait=40", ADMIN)[1]["value"] == 120
    assert ran(browser) == ["5", "4", "3", "2", "2", "1"]  # the refresh came in the midst of 2
    severe = [one for one in browser.get_log("browser") if one["level"] == "SEVERE" and "favicon" not in str(one)]
    assert severe == []


def test_a_countdown_in_a_tab_tells_each_number_once_across_a_refresh(browser: Chrome, server: Dev, page: str) -> None:
    """System 3, the shape that is a browser."""
    browser.get(f"{page}/empty.html")
    browser.execute_script("localStorage.clear()")
    open_tab(browser, server, page, "t4")
    create(server, "tab-countdown", "countdown", 5, 400)

    def recorded(_: object) -> bool:
        """The second notification; the first is `:0` and its pause `:1`."""
        status, found = request(server, "/promises/tab-countdown:2", ADMIN)
        return bool(status == 200 and found["state"] == "resolved")

    WebDriverWait(browser, 30, 0.02).until(recorded)
    browser.refresh()

    assert request(server, "/promises/tab-countdown?wait=40", ADMIN)[1]["value"] == "counted down from 5"
    assert ran(browser) == ["5", "4", "3", "2", "1", "Done"]


def test_two_tabs_take_each_task_once(browser: Chrome, server: Dev, page: str) -> None:
    open_tab(browser, server, page, "t2")
    browser.switch_to.new_window("tab")
    open_tab(browser, server, page, "t3")
    try:
        for n in range(12):
            create(server, f"tab-mine-{n}", "mine")
        answers = [request(server, f"/promises/tab-mine-{n}?wait=40", ADMIN)[1] for n in range(12)]
        assert {answer["value"] for answer in answers} == {"t2", "t3"}
        assert {answer["version"] for answer in answers} == {1}
    finally:
        browser.close()
        browser.switch_to.window(browser.window_handles[0])


def test_a_preflight_is_answered_and_the_token_opens_nothing_else(server: Dev, page: str) -> None:
    headers = {
        "origin": page,
        "access-control-request-method": "GET",
        "access-control-request-headers": "authorization",
    }
    preflight = urllib.request.Request(f"{server.url}/poll/tabs/t9", headers=headers, method="OPTIONS")
    with urllib.request.urlopen(preflight, timeout=20) as answer:
        assert answer.headers["access-control-allow-origin"] == page
    assert request(server, "/poll/other/t9", TAB)[0] == 403
    assert request(server, "/poll/tabs/t9", None)[0] == 401
    assert request(server, "/promises/boss-1", TAB)[0] == 403


def test_a_worker_hears_only_of_its_own_prefix(server: Dev) -> None:
    other = jwt.encode({"prefix": "other-", "exp": 4_000_000_000}, SECRET, "HS256")
    listening = urllib.request.Request(f"{server.url}/poll/shared/w", headers={"authorization": f"Bearer {other}"})
    with urllib.request.urlopen(listening, timeout=20) as stream:
        assert stream.readline() == b": connected\n"
        for id in ("secret-1", "other-1"):
            data = {"id": id, "timeoutAt": NEVER, "param": {}, "tags": {"resonate:target": "poll://any@shared"}}
            envelope = {"kind": "promise.create", "head": {"corrId": "c", "version": VERSION}, "data": data}
            assert request(server, "/", ADMIN, envelope)[0] == 200
        lines = iter(stream.readline, b"")
        heard = json.loads(next(line for line in lines if line.startswith(b"data: ")).removeprefix(b"data: "))
    assert heard["data"]["task"]["id"] == "other-1"


class Mortal(Dev):
    """A server that dies at a write, and is started again; the worker stays where it is."""

    program = (str(PROGRAMS / "mortal.py"),)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, DIES_FOR="tree-1", DIES_AT="1")

    def reborn(self, at: int) -> None:
        """After its death; the next run is to see it die at another moment."""
        assert self.process.wait() == -signal.SIGKILL
        self.process.communicate()
        self.environment = {"DIES_FOR": f"tree-{at}", "DIES_AT": str(at)}
        self.start()


def test_the_server_killed_at_every_request_of_the_worker(tmp_path: Path) -> None:
    """Before and after each write that a run of the official SDK leads to, one run for each of them."""
    server = Mortal(tmp_path)
    died = 0
    try:
        with typescript(server, "w1", TTL="1000") as worker:
            for at in itertools.count(1):
                id = f"tree-{at}"

                def asked() -> Any:
                    param = {"func": "tree", "args": [id, 2], "version": 1}
                    data = base64.b64encode(json.dumps(param).encode()).decode()
                    tags = {"resonate:target": "poll://any@ts"}
                    server.ask("promise.create", id=id, timeoutAt=NEVER, param={"data": data}, tags=tags)
                    return server.settled(id)

                try:
                    found = asked()
                except OSError:
                    died += 1
                    server.reborn(at + 1)
                    found = asked()
                assert found["value"] == f"{id} 2! {id} 1!".upper(), f"killed at {at}"
                ran = [note for note in worker.notes() if f"shout {id} " in note]
                assert set(ran) == {f"shout {id} 2", f"shout {id} 1"}
                assert len(ran) <= 3, f"killed at {at}: the one under way, and no other"
                if died < at:
                    break
    finally:
        server.kill()
    assert died > 20
