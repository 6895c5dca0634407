"""A stand-in for Cloud Tasks that speaks its gRPC interface to the real client and dispatches HTTP requests.

Faithful in what a handler can notice: a task comes at its schedule time with the service's headers and a signed token,
again with back-off until it is answered 2xx or its deadline passes, sometimes twice, and not at all once it is deleted,
unless it is under way. The service's limits are refused as the service refuses them. What slows a whole queue down (429
and 503) is counted. Left out: rate limits, pausing, a limit of attempts.

Time is the machine's, or virtual: then `advance` moves it, and one thing happens at a time.
"""

from __future__ import annotations

import heapq
import http.client
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import grpc
from google.cloud import tasks_v2
from google.protobuf.empty_pb2 import Empty

from .tokens import Keys

DAY = 86_400.0


class Delivery(NamedTuple):
    """A request as it is sent."""

    url: str
    headers: dict[str, str]
    body: bytes
    deadline: float


class Answered(NamedTuple):
    """What became of a delivery: a status, or the name of what went wrong."""

    name: str
    retries: int
    answer: int | str
    copy: bool


@dataclass(order=True)
class _Entry:
    at: float
    number: int
    task: Any = field(compare=False)
    retries: int = field(compare=False, default=0)
    copy: bool = field(compare=False, default=False)


class Refusal(Exception):
    def __init__(self, code: grpc.StatusCode, said: str) -> None:
        super().__init__(said)
        self.code = code


def post(delivery: Delivery) -> int:
    """Send a delivery over HTTP; its status."""
    parts = urlsplit(delivery.url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=delivery.deadline)
    try:
        connection.request("POST", parts.path or "/", delivery.body, delivery.headers)
        return connection.getresponse().status
    finally:
        connection.close()


class Dispatcher:
    """One queue, whatever it is called.

    Args:
        keys: sign the tokens.
        send: delivers; over HTTP by default. Returns a status, or raises OSError.
        start: seconds since 1970, of a virtual clock; None for the machine's.
        concurrent: how many deliveries are under way at once, on the machine's clock.
        least, most: seconds of back-off.
        duplicates: how likely a delivery is to be made twice.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        send: Callable[[Delivery], int] = post,
        start: float | None = None,
        concurrent: int = 4,
        least: float = 1.0,
        most: float = 600.0,
        duplicates: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.keys = keys
        self.log: list[Answered] = []
        self.created: list[Any] = []
        self.deleted: list[str] = []
        self.slowed = 0
        self.refuse: list[grpc.StatusCode] = []
        """What the next requests are refused with."""
        self.duplicates = duplicates
        self._send = send
        self._now = start
        self._least, self._most = least, most
        self._random = Random(seed)
        self._tasks: dict[str, Any] = {}
        self._used: set[str] = set()
        self._heap: list[_Entry] = []
        self._numbers = 0
        self._flying = 0
        self._concurrent = concurrent
        self._changed = threading.Condition()
        self._open = True
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((self._interface(),))
        self.host = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        self._pool = ThreadPoolExecutor(concurrent)
        if start is None:
            threading.Thread(target=self._run, daemon=True).start()

    def now(self) -> float:
        return time.time() if self._now is None else self._now

    @property
    def waiting(self) -> int:
        """How many tasks there are."""
        return len(self._tasks)

    def create(self, parent: str, task: Any) -> Any:
        now = self.now()
        if self.refuse:
            raise Refusal(self.refuse.pop(0), "refused by the test")
        due = task.schedule_time.timestamp() if "schedule_time" in task else now
        deadline = task.dispatch_deadline.total_seconds() if "dispatch_deadline" in task else 600
        for wrong, said in (
            (not task.http_request.url.startswith(("http://", "https://")), "HttpRequest.url is not one"),
            (len(task.http_request.body) > 100_000, "the task is too large"),
            (due > now + 30 * DAY, "schedule_time is more than 30 days ahead"),
            (not 15 <= deadline <= 1800, "dispatch_deadline is not between 15 s and 30 min"),
        ):
            if wrong:
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, said)
        with self._changed:
            self._numbers += 1
            name = task.name or f"{parent}/tasks/{10**18 + self._random.getrandbits(50) * 1000 + self._numbers}"
            if name in self._used:
                raise Refusal(grpc.StatusCode.ALREADY_EXISTS, "the name is, or was lately, in use")
            self._used.add(name)
            task.name = name
            task.schedule_time = datetime.fromtimestamp(max(due, now), UTC)
            self._tasks[name] = task
            self.created.append(task)
            self._push(max(due, now), task)
        return task

    def delete(self, name: str) -> None:
        if self.refuse:
            raise Refusal(self.refuse.pop(0), "refused by the test")
        with self._changed:
            if self._tasks.pop(name, None) is None:
                raise Refusal(grpc.StatusCode.NOT_FOUND, "the task does not exist")
            self.deleted.append(name)

    def advance(self, until: float) -> None:
        """Let virtual time pass, delivering what falls due on the way."""
        assert self._now is not None
        while self._heap and self._heap[0].at <= until:
            entry = heapq.heappop(self._heap)
            if entry.copy or entry.task.name in self._tasks:
                self._now = max(self._now, entry.at)
                self._deliver(entry)
        self._now = max(self._now, until)

    def close(self) -> None:
        self._open = False
        with self._changed:
            self._changed.notify_all()
        self._server.stop(0).wait(5)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _push(self, at: float, task: Any, retries: int = 0, copy: bool = False) -> None:
        self._numbers += 1
        heapq.heappush(self._heap, _Entry(at, self._numbers, task, retries, copy))
        self._changed.notify_all()

    def _run(self) -> None:
        while self._open:
            with self._changed:
                entry = self._take()
            if entry is not None:
                try:
                    self._pool.submit(self._deliver, entry)
                except RuntimeError:
                    return  # closed meanwhile

    def _take(self) -> _Entry | None:
        left = self._heap[0].at - time.time() if self._heap else 1.0
        if self._flying >= self._concurrent or left > 0:
            self._changed.wait(max(0.001, min(left, 1.0)))
            return None
        entry = heapq.heappop(self._heap)
        if not entry.copy and entry.task.name not in self._tasks:
            return None
        self._flying += 1
        return entry

    def _deliver(self, entry: _Entry) -> None:
        task = entry.task
        if not entry.copy and self._random.random() < self.duplicates:
            with self._changed:
                self._push(self.now() + self._random.random() * 0.3, task, entry.retries, True)
        answer: int | str
        try:
            answer = self._send(self._delivery(entry))
        except (OSError, http.client.HTTPException) as error:
            answer = type(error).__name__
        with self._changed:
            self._flying -= self._now is None
            self.log.append(Answered(task.name, entry.retries, answer, entry.copy))
            self.slowed += answer in (429, 503)
            if isinstance(answer, int) and 200 <= answer < 300:
                self._tasks.pop(task.name, None)
            elif not entry.copy and task.name in self._tasks:
                pause = min(self._least * 2 ** min(entry.retries, 16), self._most)
                self._push(self.now() + pause, task, entry.retries + 1)
            self._changed.notify_all()

    def _delivery(self, entry: _Entry) -> Delivery:
        task, request = entry.task, entry.task.http_request
        parts = task.name.split("/")
        headers = {
            "User-Agent": "Google-Cloud-Tasks",
            **dict(request.headers),
            "X-CloudTasks-QueueName": parts[5],
            "X-CloudTasks-TaskName": parts[7],
            "X-CloudTasks-TaskRetryCount": str(entry.retries),
            "X-CloudTasks-TaskExecutionCount": str(entry.retries),
            "X-CloudTasks-TaskETA": f"{entry.at:.6f}",
        }
        token = request.oidc_token
        if token.service_account_email:
            headers["Authorization"] = (
                f"Bearer {self.keys.token(token.service_account_email, token.audience or request.url)}"
            )
        deadline = task.dispatch_deadline.total_seconds() if "dispatch_deadline" in task else 600.0
        return Delivery(request.url, headers, request.body, deadline)

    def _interface(self) -> Any:
        def rpc(call: Callable[[Any], Any], request: Any, serialize: Any) -> Any:
            def answer(given: Any, context: Any) -> Any:
                try:
                    return call(given)
                except Refusal as error:
                    context.abort(error.code, str(error))

            return grpc.unary_unary_rpc_method_handler(answer, request.deserialize, serialize)

        create = rpc(lambda r: self.create(r.parent, r.task), tasks_v2.CreateTaskRequest, tasks_v2.Task.serialize)
        delete = rpc(
            lambda r: self.delete(r.name) or Empty(),
            tasks_v2.DeleteTaskRequest,
            lambda empty: empty.SerializeToString(),
        )
        return grpc.method_handlers_generic_handler(
            "google.cloud.tasks.v2.CloudTasks", {"CreateTask": create, "DeleteTask": delete}
        )
