"""What holds for every route: who may pass, methods, mounting, errors of ours, the page and the description."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from everstep import InvalidArgument, StoreUnavailable
from everstep.http import asgi
from everstep.http.feed import Feed, Topic
from everstep.http.hub import Letter
from tests.core.http_support import JSON, Shop, is_problem, make_app, shop, until

O17 = {"id": "o-17", "args": ["o-17", 4200]}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/promises/x", "GET, HEAD"),
        ("GET", "/promises/x/resolve", "POST"),
        ("DELETE", "/workflows/order", "POST"),
        ("GET", "/workflows/order", "POST"),
        ("POST", "/promises", "GET, HEAD"),
        ("PATCH", "/schedules", "GET, POST, HEAD"),
        ("DELETE", "/approve/x", "GET, POST, HEAD"),
    ],
)
def test_a_wrong_method_names_the_right_ones(method: str, path: str, allow: str) -> None:
    async def scenario(it: Shop) -> None:
        answer = await it.http.request(method, path)
        is_problem(answer, 405)
        assert answer.headers["allow"] == allow

    shop(scenario)


@pytest.mark.parametrize("path", ["/nowhere", "/promises/", "/promises/x/y", "/workflows/", "/a//b", "/openapi.json/x"])
def test_nothing_there_is_a_problem_too(path: str) -> None:
    async def scenario(it: Shop) -> None:
        is_problem(await it.get(path), 404)

    shop(scenario)


def test_a_bearer_token_is_asked_for_everywhere_but_where_no_data_is() -> None:
    async def scenario(it: Shop) -> None:
        for path in (
            "/promises",
            "/promises/x",
            "/promises/x/tree",
            "/schedules",
            "/events",
            "/workflows",
            "/poll/a/b",
        ):
            answer = await it.get(path)
            is_problem(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        is_problem(await it.post("/workflows/pay", O17), 401)
        for path in ("/", "/openapi.json"):
            assert (await it.get(path)).status_code == 200
        for wrong in ("Bearer secre", "Bearer secret2", "Basic secret", "secret", "Bearer ", "Bearer sécret"):
            headers = {"authorization": wrong.encode()}
            assert (await it.http.get("/promises", headers=headers)).status_code == 401
        headers = {"authorization": "bearer secret"}
        assert (await it.http.get("/promises", headers=headers)).status_code == 200

    shop(scenario, auth="secret")


def test_a_hook_decides_between_401_403_and_passing() -> None:
    async def hook(request: Request) -> bool:
        user = request.headers.get("x-user", "")
        if user == "reader" and request.method != "GET":
            raise PermissionError("readers only read")
        return user in ("reader", "writer")

    async def scenario(it: Shop) -> None:
        async def start(user: str) -> Any:
            headers = {"x-user": user, "content-type": "application/json"}
            return await it.http.post("/workflows/pay", content=json.dumps(O17), headers=headers)

        is_problem(await start(""), 401)
        assert is_problem(await start("reader"), 403) == "readers only read"
        assert (await start("writer")).status_code == 202
        assert (await it.http.get("/promises", headers={"x-user": "reader"})).status_code == 200

    shop(scenario, auth=hook)
    shop(scenario, auth=lambda request: hook(request))


def test_without_a_hook_a_page_of_another_site_changes_nothing() -> None:
    async def scenario(it: Shop) -> None:
        await it.post("/workflows/order", O17)
        foreign = {"sec-fetch-site": "cross-site"}
        is_problem(await it.http.post("/promises/o-17/cancel", headers=foreign), 403)
        is_problem(await it.http.delete("/schedules/x", headers=foreign), 403)
        # Whoever pulls takes messages away from those they are for.
        is_problem(await it.http.get("/poll/g/w", headers=foreign), 403)
        assert (await it.get("/promises/o-17")).json()["state"] == "pending"
        # To another machine, over plain HTTP, a browser says no more than this.
        is_problem(await it.http.post("/promises/o-17/cancel", headers={"origin": "http://evil.example"}), 403)
        is_problem(await it.http.post("/promises/o-17/cancel", headers={"origin": "null"}), 403)
        for own in ({"sec-fetch-site": "same-origin"}, {"origin": "http://shop"}, {}):
            assert (await it.http.post("/promises/o-17/cancel", headers=own)).status_code == 200

    shop(scenario)


def test_a_name_that_is_not_ours_is_refused() -> None:
    async def scenario(it: Shop) -> None:
        for host, status in {"shop": 200, "shop:80": 200, "[::1]:8001": 200, "evil.example": 403, "": 403}.items():
            assert (await it.http.get("/promises", headers={"host": host})).status_code == status, host

    shop(scenario, hosts=["shop", "::1"])


@pytest.mark.parametrize("options", [{"auth": ""}, {"secret": "short"}, {"secret": ["x" * 20, "short"]}])
def test_an_option_that_protects_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        asgi("memory:", make_app([]), **options)


def test_it_can_be_mounted_under_a_prefix() -> None:
    def mount(site: Any) -> Starlette:
        return Starlette(routes=[Mount("/durable work", app=site)])

    async def scenario(it: Shop) -> None:
        started = await it.post("/durable%20work/workflows/order", {**O17, "id": "a/b"})
        place = started.json()["promise"]

        assert place == "/durable%20work/promises/a%2Fb"
        assert (await it.get(place)).json()["id"] == "a/b"
        page = await it.get("/durable%20work", follow_redirects=True)
        assert page.url.raw_path == b"/durable%20work/"
        assert page.headers["content-type"].startswith("text/html")
        assert (await it.get("/durable%20work/openapi.json")).json()["servers"] == [{"url": "/durable work"}]

    shop(scenario, mount=mount)


def test_a_store_is_opened_on_first_use_and_closed_with_the_app(tmp_path: Any) -> None:
    async def play() -> None:
        site = asgi(f"sqlite:///{tmp_path}/e.db", make_app([]))
        sent: list[Any] = []
        inbox: asyncio.Queue[Any] = asyncio.Queue()

        async def send(message: Any) -> None:
            sent.append(message)

        life = asyncio.create_task(site({"type": "lifespan"}, inbox.get, send))
        inbox.put_nowait({"type": "lifespan.startup"})
        await asyncio.sleep(0)
        assert not (tmp_path / "e.db").exists()
        await site.client.start("pay", "x", 1, id="p")
        inbox.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait_for(life, 5)
        assert [one["type"] for one in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert (tmp_path / "e.db").exists()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (
            StoreUnavailable("secret address 10.0.0.1"),
            503,
            "the store is not available now; nothing is lost, try again",
        ),
        (RuntimeError("secret address 10.0.0.1"), 500, "something went wrong here; the log has the details"),
    ],
)
def test_our_trouble_says_nothing_of_the_inside(
    error: Exception, status: int, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(it: Shop) -> None:
        async def fail(*args: Any, **kwargs: Any) -> Any:
            raise error

        monkeypatch.setattr(it.client, "get", fail)
        assert is_problem(await it.get("/promises/x"), status, field=None) == detail

    shop(scenario)


def test_the_page_is_one_file_that_loads_nothing_from_elsewhere() -> None:
    async def scenario(it: Shop) -> None:
        page = await it.get("/")
        policy = page.headers["content-security-policy"]

        assert page.status_code == 200
        assert len(page.content) < 60_000
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page.text)
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "innerHTML" not in page.text

    shop(scenario)


def test_without_the_page_there_is_none() -> None:
    async def scenario(it: Shop) -> None:
        is_problem(await it.get("/"), 405)

    shop(scenario, page=False)


def test_the_description_covers_every_route() -> None:
    async def scenario(it: Shop) -> None:
        document = (await it.get("/openapi.json")).json()
        for path, methods in document["paths"].items():
            for method in methods.keys() - {"parameters"}:
                answer = await it.http.request(method, path.replace("{id}", "x").replace("{name}", "x"))
                assert answer.status_code not in (405, 501), (method, path)
        references = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))
        assert set(references) == set(document["components"]["schemas"])

    async def no_stream(it: Shop) -> None:
        it.site.stop()
        await scenario(it)

    shop(no_stream)


class Stream:
    """A connection to /events, message by message."""

    def __init__(self, site: Any, query: str) -> None:
        self._site = site
        self._query = query
        self._out: asyncio.Queue[Any] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._text = ""

    async def __aenter__(self) -> Stream:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "path": "/events",
            "raw_path": b"/events",
            "root_path": "",
            "query_string": self._query.encode(),
            "headers": [],
        }
        self._task = asyncio.create_task(self._site(scope, self._receive, self._out.put))
        start = await asyncio.wait_for(self._out.get(), 5)
        assert start["status"] == 200
        assert (b"content-type", b"text/event-stream; charset=utf-8") in start["headers"]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(self._task, 5)

    async def _receive(self) -> Any:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def event(self) -> tuple[str, Any]:
        """The next event's name and data."""
        while True:
            block, found, rest = self._text.partition("\n\n")
            if found:
                self._text = rest
                match = re.fullmatch(r"event: (\w+)\ndata: (.*)", block)
                if match is not None:
                    return match[1], json.loads(match[2])
                continue
            message = await asyncio.wait_for(self._out.get(), 5)
            assert message["type"] == "http.response.body"
            self._text += message["body"].decode()


def test_events_show_a_run_as_it_moves() -> None:
    async def scenario(it: Shop) -> None:
        async with Stream(it.site, "run=o-17") as stream:
            seen = dict([await stream.event(), await stream.event()])
            assert seen["runs"]["promises"] == []
            assert (seen["run"]["id"], seen["run"]["run"]) == ("o-17", None)
            await it.post("/workflows/order", O17)
            seen = dict([await stream.event(), await stream.event()])
            assert [one["id"] for one in seen["runs"]["promises"]] == ["o-17"]
            assert seen["run"]["run"]["nodes"][0]["word"] == "queued"
            async with it.working():
                while not any(one["word"] == "open" for one in seen["run"]["run"]["nodes"]):
                    seen.update([await stream.event()])
                await it.post("/promises/o-17.2/resolve", {"value": False})
                while seen["runs"]["promises"][0]["word"] != "done":
                    seen.update([await stream.event()])
            while seen["run"]["run"]["nodes"][0]["word"] != "done":
                seen.update([await stream.event()])
            top = seen["run"]["run"]["nodes"][0]
            assert (top["name"], top["output"]) == ("order", '"receipt o-17 4200 dropped"')

    shop(scenario)


def test_trouble_with_the_store_is_an_event_and_passes() -> None:
    async def scenario(it: Shop) -> None:
        good = it.client.search

        async def fail(**kwargs: Any) -> Any:
            raise StoreUnavailable("down")

        it.client.search = fail  # type: ignore[method-assign]
        async with Stream(it.site, "") as stream:
            assert "not available" in (await stream.event())[1]["trouble"]
            it.client.search = good  # type: ignore[method-assign]
            it.site.feed.kick()
            assert (await stream.event())[1]["promises"] == []

    shop(scenario)


def test_one_poller_serves_all_connections_and_rests_when_nobody_looks() -> None:
    fetched: list[Topic] = []
    texts = {"runs": "a"}

    async def fetch(topic: Topic) -> str:
        fetched.append(topic)
        return texts[topic.name]

    async def play() -> None:
        feed = Feed(fetch, interval=3600)
        topic = Topic("runs")
        async with contextlib.AsyncExitStack() as stack:
            watchers = [await stack.enter_async_context(feed.subscribe(topic)) for _ in range(50)]
            for one in watchers:
                assert await one.next(5) == {topic: "a"}
            assert len(fetched) == feed.rounds == 1
            feed.kick()
            await until(lambda: feed.rounds == 2)
            assert await watchers[0].next(0) == {}  # the same text is no news
            texts["runs"] = "b"
            feed.kick()
            assert [await one.next(5) for one in watchers] == [{topic: "b"}] * 50
            assert len(fetched) == 3
        rounds = feed.rounds
        feed.kick()
        await asyncio.sleep(0.01)
        assert (feed.rounds, len(fetched)) == (rounds, 3)
        async with feed.subscribe(topic) as again:
            assert await again.next(5) == {topic: "b"}

    asyncio.run(play())


def test_a_slow_connection_skips_and_never_queues() -> None:
    count = 0

    async def fetch(topic: Topic) -> str:
        nonlocal count
        count += 1
        return str(count)

    async def play() -> None:
        feed = Feed(fetch, interval=0)
        topic = Topic("runs")
        async with feed.subscribe(topic) as slow:
            await until(lambda: feed.rounds >= 20)
            news = await slow.next(5)
            assert int(news[topic]) >= 20
            assert len(slow.news) <= 1

    asyncio.run(play())


def test_a_huge_tree_is_shown_from_its_end() -> None:
    from everstep.http.brief import MAX_NODES, brief_tree
    from everstep.views import PromiseView, TreeView

    children = [
        TreeView(PromiseView(f"r.{n}", "resolved" if n % 500 else "pending", "step", created_at=n, settled_at=n))
        for n in range(1, MAX_NODES + 1001)
    ]
    shown = brief_tree(TreeView(PromiseView("r", "pending", "root"), children))
    ids = [node["id"] for node in shown["nodes"]]

    assert (len(ids), shown["left_out"]) == (MAX_NODES, 1001)
    assert ids[0] == "r"
    assert ids[-1] == f"r.{MAX_NODES + 1000}"
    assert "r.500" in ids
    assert "r.1" not in ids


def test_previews_stay_small_whatever_the_values() -> None:
    from everstep.http.brief import PREVIEW, brief
    from everstep.views import PromiseView

    big = PromiseView("a", "resolved", "root", "f", ["x" * 10**6, {"k": ["y"] * 10**5}], {"z": 1}, value="v" * 10**6)

    assert len(brief(big)["input"]) == len(brief(big)["output"]) == PREVIEW


@pytest.mark.parametrize("path", ["/", "/workflows/pay"])
def test_a_length_that_is_no_number_to_work_with_is_too_large(path: str) -> None:
    async def scenario(it: Shop) -> None:
        headers = {**JSON, "content-length": "9" * 5000}
        assert (await it.http.post(path, content=b"{}", headers=headers)).status_code == 413

    shop(scenario)


@pytest.mark.parametrize("path", ["/", "/workflows/pay"])
def test_a_caller_who_leaves_in_mid_request_is_no_error(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        said: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            said.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        await asgi("memory:", make_app([]))(scope, receive, send)
        assert said == []

    asyncio.run(play())
    assert caplog.records == []


@pytest.mark.parametrize("path", ["/poll/g/w", "/events"])
def test_who_asks_for_the_head_of_a_stream_takes_nothing_from_it(path: str) -> None:
    async def scenario(it: Shop) -> None:
        it.hub.send("poll://any@g", Letter("k", "p", "for a worker"))
        answer = await asyncio.wait_for(it.http.head(path), 5)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert it.hub.connections == 0
        with it.hub.connect("g", "w", lambda id: True) as worker:
            assert await worker.next(0) == "for a worker"

    shop(scenario)
