"""SQS and EventBridge Scheduler on a clock of the test's own, answering real clients.

No emulator lets days pass. What is here is what AWS documents and we rely on: delays up to 900 seconds, visibility
timeouts, receive counts and dead letters, one-time schedules that delete themselves, names and limits that are refused.
The requests are those of botocore, so a parameter it does not know never gets here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import cache
from itertools import count
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.exceptions import ConnectionClosedError

from everstep.clock import VirtualClock
from everstep.errors import WakerError
from everstep_aws.calls import Caller, make_client
from everstep_aws.waker import SqsWaker

from .emulators import CREDENTIALS, REGION
from .faults import answer, no_pause

ACCOUNT = "123456789012"
QUEUE = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/wakes"
QUEUE_ARN = f"arn:aws:sqs:{REGION}:{ACCOUNT}:wakes"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/scheduler"
VISIBILITY = 90_000

_here: list[Cloud] = []


class LambdaContext:
    """What Lambda hands over beside an event."""

    function_name = "f"
    aws_request_id = "5e1c"
    memory_limit_in_mb = 128
    invoked_function_arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f"

    def __init__(self, remaining: int = 60_000) -> None:
        self.remaining = remaining

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining


class Message:
    """One message, and when it is visible (milliseconds)."""

    def __init__(self, id: str, body: str, attributes: dict[str, Any], visible_at: int) -> None:
        self.id = id
        self.body = body
        self.attributes = attributes
        self.visible_at = visible_at
        self.received = 0

    def record(self, arn: str) -> dict[str, Any]:
        """As an event source mapping hands it over."""
        return {
            "messageId": self.id,
            "receiptHandle": f"receipt-{self.id}-{self.received}",
            "body": self.body,
            "attributes": {"ApproximateReceiveCount": str(self.received), "SentTimestamp": "1700000000000"},
            "messageAttributes": {
                name: {"stringValue": value["StringValue"], "dataType": value["DataType"]}
                for name, value in self.attributes.items()
            },
            "md5OfBody": "",
            "eventSource": "aws:sqs",
            "eventSourceARN": arn,
            "awsRegion": REGION,
        }


class Cloud:
    """One queue with its dead letters, one group of schedules, and a clock."""

    def __init__(self, *, max_receives: int = 8, visibility: int = VISIBILITY) -> None:
        self.clock = VirtualClock()
        self.queue: dict[str, Message] = {}
        self.dead: list[Message] = []
        self.schedules: dict[str, tuple[int, dict[str, Any]]] = {}
        self.requests: list[str] = []
        self.max_receives = max_receives
        self.visibility = visibility
        self.late = 59_000
        """By how many milliseconds a schedule comes late: it is precise to the minute."""
        self.script: list[str] = []
        """What happens to the next requests: `ok`; `lost` is carried out and the answer dropped; else a code."""
        self._ids = count(1)
        _here[:] = [self]

    def waker(self, *, caller: Callable[..., Caller] = Caller, **changes: Any) -> SqsWaker:
        """A waker that reaches this cloud with real clients, by callers of that kind."""
        errors: dict[str, Any] = {"failure": WakerError, "unavailable": WakerError, "unknown": WakerError}
        options: dict[str, Any] = {"role": ROLE, "clock": self.clock, **changes}
        return SqsWaker(
            QUEUE,
            sqs=caller(lambda: _client("sqs"), "the queue", pause=no_pause, **errors),
            scheduler=caller(lambda: _client("scheduler"), "the group", pause=no_pause, **errors),
            **options,
        )

    def next_at(self) -> int | None:
        """When something happens next."""
        instants = [m.visible_at for m in self.queue.values()] + [at for at, _ in self.schedules.values()]
        return min(instants, default=None)

    def fire(self) -> None:
        """Let schedules whose instant has come send their messages, and vanish."""
        for name, (at, target) in list(self.schedules.items()):
            if at <= self.clock.now():
                del self.schedules[name]
                self.send(target["Input"], {}, 0)

    def send(self, body: str, attributes: dict[str, Any], delay: int) -> Message:
        message = Message(f"m{next(self._ids)}", body, attributes, self.clock.now() + delay * 1000)
        self.queue[message.id] = message
        return message

    def receive(self) -> Message | None:
        """One visible message; what was received too often goes to the dead letters instead."""
        now = self.clock.now()
        for message in sorted(self.queue.values(), key=lambda m: m.visible_at):
            if message.visible_at > now:
                return None
            if message.received >= self.max_receives:
                self.dead.append(self.queue.pop(message.id))
                continue
            message.received += 1
            message.visible_at = now + self.visibility
            return message
        return None

    async def run(self, until: int, invoke: Callable[[Message], Awaitable[bool]]) -> None:
        """Deliver everything that becomes visible until then; `invoke` tells whether the message is acknowledged."""
        while True:
            self.fire()
            message = self.receive()
            if message is not None:
                if await invoke(message):
                    self.queue.pop(message.id, None)
                continue
            following = self.next_at()
            if following is None or following > until:
                self.clock.set(max(until, self.clock.now()))
                return
            self.clock.set(max(self.clock.now(), following))

    def meet(self, carry_out: Callable[[], tuple[int, Any]]) -> tuple[int, Any]:
        """One request, as the script has it."""
        fault = self.script.pop(0) if self.script else "ok"
        if fault not in ("ok", "lost"):
            return 400, {"__type": fault, "message": fault}
        answered = carry_out()
        if fault == "lost":
            raise ConnectionClosedError(endpoint_url="")
        return answered

    # The services.

    def sqs(self, operation: str, body: dict[str, Any]) -> tuple[int, Any]:
        assert operation == "SendMessage", operation
        assert body["QueueUrl"] == QUEUE
        delay = body.get("DelaySeconds", 0)
        if not 0 <= delay <= 900:
            return 400, {"__type": "com.amazonaws.sqs#InvalidParameterValue", "message": f"DelaySeconds {delay}"}
        if len(body["MessageBody"].encode()) > 262_144:
            return 400, {"__type": "com.amazonaws.sqs#InvalidParameterValue", "message": "too long"}
        message = self.send(body["MessageBody"], body.get("MessageAttributes", {}), delay)
        return 200, {"MessageId": message.id}

    def scheduler(self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> tuple[int, Any]:
        name = unquote(path.removeprefix("/schedules/"))
        if not re.fullmatch(r"[0-9a-zA-Z_.-]{1,64}", name):
            return 400, {"__type": "ValidationException", "Message": f"name {name}"}
        if method == "DELETE":
            if self.schedules.pop(name, None) is None:
                return 404, {"__type": "ResourceNotFoundException", "Message": name}
            return 200, {}
        if name in self.schedules:
            return 409, {"__type": "ConflictException", "Message": name}
        found = re.fullmatch(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)", body["ScheduleExpression"])
        assert found is not None
        assert body["ScheduleExpressionTimezone"] == "UTC"
        assert body["ActionAfterCompletion"] == "DELETE", "nothing is left behind"
        target = body["Target"]
        assert (target["Arn"], target["RoleArn"]) == (QUEUE_ARN, ROLE)
        at = round(datetime.fromisoformat(found[1] + "+00:00").timestamp() * 1000)
        self.schedules[name] = (at + self.late, target)
        return 200, {"ScheduleArn": f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/default/{name}"}


@cache
def _client(service: str) -> Any:
    with patch.dict(os.environ, CREDENTIALS):
        client = make_client(service, region=REGION)

    def carry_out(request: Any, **_: Any) -> Any:
        cloud, url = _here[0], urlsplit(request.url)
        raw = request.body or b"{}"
        body = json.loads(raw if isinstance(raw, (str, bytes)) else raw.read())
        if service == "sqs":
            target = request.headers["X-Amz-Target"]
            operation = (target.decode() if isinstance(target, bytes) else target).rpartition(".")[2]
            cloud.requests.append(operation)
            status, out = cloud.meet(lambda: cloud.sqs(operation, body))
        else:
            cloud.requests.append("CreateSchedule" if request.method == "POST" else "DeleteSchedule")
            status, out = cloud.meet(lambda: cloud.scheduler(request.method, url.path, parse_qs(url.query), body))
        headers = {"x-amzn-errortype": out["__type"]} if status >= 400 else {}
        return answer(request.url, status, out, headers)

    client.meta.events.register_first("before-send", carry_out)  # before moto, where that is active
    return client
