"""What Lambda is invoked with, told apart by shape alone, and its records as events of one kind.

Every source names itself differently, and only some let a part of a batch fail. A record's identity is the source's
own and the same at every delivery, so that it starts one run however often it comes.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from everstep.errors import UsageError
from everstep.events import Event
from everstep.nesting import loads

Payload = Mapping[str, Any]

WAYS = ("sqs", "sns", "s3", "kinesis", "dynamodb", "kafka", "eventbridge", "direct")
"""Every kind of event, as `app.on(kind)` names it."""


class UnknownEvent(UsageError):
    """Lambda was invoked with something that is no event known here; the message names its keys."""


class MalformedEvent(UsageError):
    """A record lacks what every record of its kind has; the message names both."""


class Item(NamedTuple):
    """One record of an invocation. `failure` identifies it in a partial answer, where its source takes one; the records
    of one `group` are taken in order."""

    event: Event
    failure: str | None = None
    group: str | None = None


class Batch(NamedTuple):
    """The records of an invocation. `partial`: the source takes the list of those that failed."""

    kind: str
    items: list[Item]
    partial: bool


def is_http(payload: Any) -> bool:
    """A function URL, API Gateway (either version) or a load balancer."""
    context = payload.get("requestContext") if isinstance(payload, Mapping) else None
    return isinstance(context, Mapping) and ("httpMethod" in payload or "http" in context)


def read(payload: Any) -> Batch | None:
    """The records of an event; None for what is none: a direct invocation.

    Raises:
        UnknownEvent: it has records, and of no kind known here.
        MalformedEvent: a record lacks a field.
    """
    if not isinstance(payload, Mapping):
        return None
    if payload.get("eventSource") in ("aws:kafka", "SelfManagedKafka"):
        parts = payload.get("records", {})
        return Batch("kafka", _each("kafka", _kafka, [record for part in parts.values() for record in part]), False)
    if "detail-type" in payload and "source" in payload:
        return Batch("eventbridge", _each("eventbridge", _eventbridge, [payload]), False)
    if payload.get("Event") == "s3:TestEvent":
        return Batch("s3", [], False)
    records = payload.get("Records")
    if not isinstance(records, list):
        return None
    kinds = {str(record.get("eventSource") or record.get("EventSource") or "") for record in records}
    if not records or len(kinds) != 1:
        raise UnknownEvent(f"Lambda was invoked with {len(records)} records from {sorted(kinds)}")
    (source,) = kinds
    found = _RECORDS.get(source)
    if found is None:
        raise UnknownEvent(f"Lambda was invoked with records of {source!r}; known are {', '.join(sorted(_RECORDS))}")
    kind, one, partial = found
    return Batch(kind, _each(kind, one, records), partial)


def direct(payload: Any, request_id: str, function: str) -> Event:
    """A direct invocation as an event: Lambda's own retries of an asynchronous one keep its request id."""
    return Event(request_id, "direct", function, "", payload)


def _each(kind: str, one: Callable[[Payload], Item], records: list[Payload]) -> list[Item]:
    try:
        return [one(record) for record in records]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedEvent(f"a record of kind {kind} cannot be read: {type(error).__name__}: {error}") from error


def _sqs(record: Payload) -> Item:
    attributes = dict(record.get("attributes", {})) | {
        name: value.get("stringValue", value.get("binaryValue"))
        for name, value in record.get("messageAttributes", {}).items()
    }
    sent = attributes.get("SentTimestamp")
    event = Event(
        record["messageId"],
        "sqs",
        _last(record["eventSourceARN"]),
        "",
        _json(record["body"]),
        attributes,
        int(sent) if sent is not None else None,
    )
    return Item(event, record["messageId"], attributes.get("MessageGroupId"))


def _sns(record: Payload) -> Item:
    message = record["Sns"]
    attributes = {name: value.get("Value") for name, value in message.get("MessageAttributes", {}).items()}
    return Item(
        Event(
            message["MessageId"],
            "sns",
            _last(message["TopicArn"]),
            message.get("Subject") or "",
            _json(message["Message"]),
            attributes,
            _instant(message["Timestamp"]),
        )
    )


def _s3(record: Payload) -> Item:
    s3 = record["s3"]
    bucket, thing = s3["bucket"]["name"], s3["object"]
    key = unquote_plus(thing["key"])
    data = {"bucket": bucket, "key": key, "size": thing.get("size"), "etag": thing.get("eTag")}
    if "versionId" in thing:
        data["version"] = thing["versionId"]
    # A removal has a sequencer too; without one (a restore), the instant tells two of them apart.
    identity = f"{bucket}/{key}/{thing.get('sequencer') or record['eventTime']}"
    type_, at = record["eventName"], _instant(record["eventTime"])
    return Item(Event(identity, "s3", bucket, type_, data, {"region": record.get("awsRegion", "")}, at))


def _kinesis(record: Payload) -> Item:
    body = record["kinesis"]
    attributes = {"partition_key": body["partitionKey"], "sequence_number": body["sequenceNumber"]}
    at = body.get("approximateArrivalTimestamp")
    event = Event(
        record["eventID"],
        "kinesis",
        record["eventSourceARN"].partition(":stream/")[2].partition("/")[0],
        "",
        _bytes(body["data"]),
        attributes,
        round(at * 1000) if at is not None else None,
    )
    return Item(event, body["sequenceNumber"])


def _dynamodb(record: Payload) -> Item:
    body = record["dynamodb"]
    images = {"keys": "Keys", "new": "NewImage", "old": "OldImage"}
    data = {name: _plain_item(body[image]) for name, image in images.items() if image in body}
    at = body.get("ApproximateCreationDateTime")
    event = Event(
        record["eventID"],
        "dynamodb",
        record["eventSourceARN"].partition(":table/")[2].partition("/")[0],
        record["eventName"],
        data,
        {"sequence_number": body["SequenceNumber"]},
        round(at * 1000) if at is not None else None,
    )
    return Item(event, body["SequenceNumber"])


def _kafka(record: Payload) -> Item:
    topic, partition, offset = record["topic"], record["partition"], record["offset"]
    headers = {
        name: bytes(byte % 256 for byte in value).decode(errors="replace") if isinstance(value, list) else value
        for header in record.get("headers", ())
        for name, value in header.items()
    }
    attributes = {"partition": partition, "offset": offset, "headers": headers}
    if record.get("key") is not None:
        attributes["key"] = _bytes(record["key"])
    data = _bytes(record["value"]) if record.get("value") is not None else None
    return Item(Event(f"{topic}-{partition}-{offset}", "kafka", topic, "", data, attributes, record.get("timestamp")))


def _eventbridge(payload: Payload) -> Item:
    attributes = {name: payload[name] for name in ("account", "region", "resources") if name in payload}
    detail, at = _json(payload.get("detail")), _instant(payload["time"])
    return Item(Event(payload["id"], "eventbridge", payload["source"], payload["detail-type"], detail, attributes, at))


_RECORDS: dict[str, tuple[str, Callable[[Payload], Item], bool]] = {
    "aws:sqs": ("sqs", _sqs, True),
    "aws:sns": ("sns", _sns, False),
    "aws:s3": ("s3", _s3, False),
    "aws:kinesis": ("kinesis", _kinesis, True),
    "aws:dynamodb": ("dynamodb", _dynamodb, True),
}


def _last(arn: str) -> str:
    return arn.rpartition(":")[2]


def _json(text: Any) -> Any:
    """JSON where it parses, else what it was."""
    if not isinstance(text, str):
        return text
    try:
        return loads(text)
    except (ValueError, RecursionError):
        return text


def _bytes(encoded: str) -> Any:
    """Base64 as JSON, else text, else bytes."""
    raw = b64decode(encoded, validate=True)
    try:
        return _json(raw.decode())
    except UnicodeDecodeError:
        return raw


def _instant(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _plain_item(item: Payload) -> dict[str, Any]:
    return {name: _plain(value) for name, value in item.items()}


def _plain(value: Payload) -> Any:
    """A value of DynamoDB as plain JSON; binary stays base64, and a number that no float holds stays text."""
    ((type_, held),) = value.items()
    match type_:
        case "N":
            return _number(held)
        case "NULL":
            return None
        case "M":
            return _plain_item(held)
        case "L":
            return [_plain(one) for one in held]
        case "NS":
            return [_number(one) for one in held]
        case _:
            return held


def _number(text: str) -> int | float | str:
    try:
        return int(text)
    except ValueError:
        value = float(text)
        return value if len(text.strip("-").replace(".", "").strip("0")) <= 15 else text
