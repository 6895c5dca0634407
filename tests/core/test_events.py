"""Given an event, when it is dispatched, then exactly these runs exist, however often it is delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstep import App, Client, Context, InvalidArgument, StoreUnavailable
from everstep.events import Event, EventRefused, run_id
from everstep.hosting import Host
from everstep.ids import check_root
from everstep.stores.memory import MemoryStore
from everstep.wakers.local import LocalWaker

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def host(app: App, store: MemoryStore | None = None) -> Host:
    client = Client(store if store is not None else MemoryStore(), LocalWaker(), app=app)
    return Host(app, client, pid="test", lease=60_000)


def shop() -> App:
    app = App("shop")

    @app.on("sqs", source="orders*", id=lambda event: f"order-{event.data['number']}")
    @app.workflow
    async def order(ctx: Context, body: dict[str, int]) -> int:
        return body["number"]

    @app.on("postgres", source="users", type="INSERT", args=lambda event: (event.data["id"],))
    @app.workflow
    async def welcome(ctx: Context, user: str) -> str:
        return user

    return app


def test_an_event_starts_the_workflow_that_wants_it_and_again_starts_nothing() -> None:
    async def story() -> None:
        there = host(shop())
        event = Event("m-1", "sqs", "orders-eu", data={"number": 7})
        for _ in range(3):
            assert await there.dispatch(event) == ["order-7"]
        found, _ = await there.client.search()
        assert [view.id for view in found] == ["order-7"]

    run(story())


@pytest.mark.parametrize(
    "event",
    [
        Event("m", "sqs", "returns", data={"number": 7}),
        Event("m", "sns", "orders", data={"number": 7}),
        Event("m", "postgres", "users", "UPDATE", {"id": "u"}),
    ],
    ids=lambda event: f"{event.kind} {event.source} {event.type}",
)
def test_an_event_nobody_wants_starts_nothing(event: Event) -> None:
    assert run(host(shop()).dispatch(event)) == []


def test_the_same_event_has_one_id_and_other_events_have_others() -> None:
    async def story() -> None:
        there = host(shop())
        insert = Event("e-1", "postgres", "users", "INSERT", {"id": "u1"})
        other = Event("e-2", "postgres", "users", "INSERT", {"id": "u1"})
        assert await there.dispatch(insert) == await there.dispatch(insert) == ["welcome:users:e-1"]
        assert await there.dispatch(other) == ["welcome:users:e-2"]

    run(story())


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12)), min_size=2, max_size=2))
def test_ids_of_events_are_legal_and_differ_where_the_events_do(parts: list[tuple[str, str, str]]) -> None:
    ids = []
    for workflow, source, id in parts:
        try:
            f"{workflow}{source}{id}".encode()
        except UnicodeEncodeError:
            return
        ids.append(check_root(run_id(workflow, Event(id, "kafka", source))))
    assert (ids[0] == ids[1]) is (parts[0] == parts[1])


def test_a_long_identity_is_shortened_and_stays_itself() -> None:
    long, longer = "k/" * 600, "k/" * 600 + "x"
    first, second = run_id("w", Event(long, "s3", "b")), run_id("w", Event(longer, "s3", "b"))
    assert first != second
    assert len(check_root(first).encode()) <= 1000


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"no": 1}, "id= failed: KeyError"),
        ({"number": "1.2"}, "has a dot"),
        ({"number": object()}, "object"),
        (["x"], "id= failed: TypeError"),
    ],
    ids=["no key", "a dot in the id", "not JSON", "another shape"],
)
def test_an_event_that_can_start_nothing_is_refused_by_name(data: Any, said: str) -> None:
    with pytest.raises(EventRefused, match="sqs event 'm' of 'orders' cannot start 'order'") as caught:
        run(host(shop()).dispatch(Event("m", "sqs", "orders", data=data)))
    assert said in str(caught.value)


def test_trouble_of_the_store_is_no_refusal() -> None:
    class Away(MemoryStore):
        async def commit(self, commit: Any) -> Any:
            raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        run(host(shop(), Away()).dispatch(Event("m", "sqs", "orders", data={"number": 1})))


def test_a_trigger_stands_above_the_workflow() -> None:
    app = App("a")
    with pytest.raises(InvalidArgument, match="stands above"):
        app.on("sqs")(lambda event: None)  # type: ignore[type-var]
    with pytest.raises(InvalidArgument, match="kind of event"):
        app.on("")
