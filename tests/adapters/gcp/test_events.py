"""Events as Google sends them, from files in the vendor's form, and what is none."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from everstep.errors import InvalidArgument
from everstep.events import Event
from everstep_gcp.events import event_of, is_cloud_event

FILES = Path(__file__).with_name("events")


def given(name: str) -> tuple[dict[str, str], bytes]:
    """A request kept in a file: headers and a body."""
    request = json.loads((FILES / f"{name}.json").read_text())
    return request["headers"], json.dumps(request["body"]).encode()


def test_a_push_of_pubsub() -> None:
    headers, body = given("pubsub_push")
    assert not is_cloud_event(headers)
    assert event_of(headers, body) == Event(
        "2070443601311540",
        "pubsub",
        "orders-push",
        "",
        {"order": "o-17", "cents": 4200},
        {"team": "ops"},
        1614366835749,
    )


def test_pubsub_through_eventarc_names_the_topic() -> None:
    headers, body = given("eventarc_pubsub")
    assert is_cloud_event(headers)
    event = event_of(headers, body)
    assert (event.kind, event.source, event.id) == ("pubsub", "orders", "2070443601311540")
    assert event.data == {"order": "o-17", "cents": 4200}


def test_a_cloud_event_in_binary_form() -> None:
    headers, body = given("eventarc_storage")
    event = event_of(headers, body)
    assert event.kind == "cloudevent"
    assert event.type == "google.cloud.storage.object.v1.finalized"
    assert event.source == "//storage.googleapis.com/projects/_/buckets/uploads"
    assert event.id == "1234567890"
    assert event.data["name"] == "folder/photo one.jpg"
    assert event.attributes["subject"] == "objects/folder/photo one.jpg"
    assert event.time == 1614366835749


@pytest.mark.parametrize(
    ("field", "value"), [("data", {"a": 1}), ("data_base64", base64.b64encode(b'{"a":1}').decode())]
)
def test_a_cloud_event_in_structured_form(field: str, value: Any) -> None:
    body = {"specversion": "1.0", "id": "e1", "source": "/mine", "type": "made", field: value, "extra": "x"}
    headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
    assert is_cloud_event(headers)
    event = event_of(headers, json.dumps(body).encode())
    assert event == Event("e1", "cloudevent", "/mine", "made", {"a": 1}, {"specversion": "1.0", "extra": "x"})


def test_a_tick_of_scheduler_is_identified_by_its_instant() -> None:
    headers, body = given("scheduler")
    assert event_of(headers, body) == Event(
        "2026-11-21T03:00:00Z", "cron", "nightly", data={"team": "sales"}, time=1795230000000
    )


@pytest.mark.parametrize(
    ("raw", "data"), [(b"plain text", "plain text"), (b"\xff\xfe", b"\xff\xfe"), (b"", None), (b"12", 12)]
)
def test_data_is_json_else_text_else_bytes(raw: bytes, data: Any) -> None:
    message = {"messageId": "1", "data": base64.b64encode(raw).decode()}
    assert event_of({}, json.dumps({"message": message, "subscription": "p/s"}).encode()).data == data


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ({}, b"", "JSON"),
        ({}, b"{", "JSON"),
        ({}, b"[]", "list"),
        ({}, b"[" * 100_000, "JSON"),
        ({}, b'{"subscription": "s"}', "'message'"),
        ({}, b'{"message": []}', "'message'"),
        ({}, b'{"message": {"data": "e30="}}', "messageId"),
        ({}, b'{"message": {"messageId": 7}}', "messageId"),
        ({}, b'{"message": {"messageId": "1", "data": "%%%"}}', "base64"),
        ({}, b'{"message": {"messageId": "1", "data": 5}}', "base64"),
        ({}, b'{"message": {"messageId": "1", "attributes": [1]}}', "attributes"),
        ({"ce-id": "1", "ce-type": "t"}, b"{}", "'source'"),
        ({"ce-id": "1", "ce-source": "s"}, b"{}", "'type'"),
        ({"ce-id": "", "ce-source": "s", "ce-type": "t"}, b"{}", "'id'"),
        ({"content-type": "application/cloudevents+json"}, b"7", "int"),
        ({"content-type": "application/cloudevents+json"}, b'{"id": "1", "source": "s"}', "'type'"),
        ({"x-cloudscheduler-jobname": "j"}, b"", "when it was due"),
    ],
)
def test_what_is_no_event_is_refused_by_name(headers: dict[str, str], body: bytes, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        event_of(headers, body)


def test_pubsub_through_eventarc_without_a_message_is_refused() -> None:
    headers, _ = given("eventarc_pubsub")
    with pytest.raises(InvalidArgument, match="'message'"):
        event_of(headers, b'"text"')
