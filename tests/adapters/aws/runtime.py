"""A small Lambda around the real runtime client: a Runtime API server for each sandbox, fed from a queue.

What is kept of Lambda: `next`, `response`, `error` and `init/error`; deadline and trace headers; the kill at the
deadline, and of a process that has more memory than the function was given; a sandbox that is used again after an
answer and replaced after a death; an event source mapping with partial batch responses, receive counts, a visibility
timeout and dead letters. The queue and the schedules are those of `cloud.Cloud` on the machine's clock, behind a
socket.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from everstep.clock import SystemClock

from .cloud import ACCOUNT, QUEUE, QUEUE_ARN, ROLE, Cloud, Message
from .emulators import CREDENTIALS, REGION, dynamodb_url

ROOT = Path(__file__).resolve().parents[3]
_PATHS = (ROOT / "core", ROOT / "adapters" / "aws")

Reply = tuple[int, dict[str, str], bytes]
Routes = Callable[[str, str, Mapping[str, str], bytes], Reply]


def serve(routes: Routes) -> ThreadingHTTPServer:
    """A server on a free port of this machine. Each answer leaves in one piece: two would cost 40 ms."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def answer(self) -> None:
            try:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                status, headers, out = routes(self.command, self.path, self.headers, body)
                self.send_response(status)
                for name, value in {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(out)),
                    **headers,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(out)
                self.wfile.flush()
            except OSError:
                self.close_connection = True  # the sandbox was killed meanwhile

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A sandbox that is killed resets its connections."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


class LiveCloud(Cloud):
    """The same services on the machine's clock, for other processes."""

    def __init__(self, *, visibility: int, max_receives: int = 8) -> None:
        super().__init__(visibility=visibility, max_receives=max_receives)
        self.clock: Any = SystemClock()
        self.late = 500
        self.lock = threading.Condition()
        self.server = serve(self._routes)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def _routes(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        asked = json.loads(body or b"{}")
        with self.lock:
            if target := headers.get("x-amz-target"):
                status, out = self.sqs(target.rpartition(".")[2], asked)
            else:
                at = urlsplit(path)
                status, out = self.scheduler(method, at.path, parse_qs(at.query), asked)
            self.lock.notify_all()
        return status, {"x-amzn-errortype": out["__type"]} if status >= 400 else {}, json.dumps(out).encode()

    def take(self, seconds: float) -> Message | None:
        """One message, waited for."""
        end = time.monotonic() + seconds
        with self.lock:
            while True:
                self.fire()
                message = self.receive()
                if message is not None or time.monotonic() > end:
                    return message
                self.lock.wait(0.05)

    def done(self, message: Message, receipt: int) -> None:
        """Delete it; a receipt of an earlier receive deletes nothing."""
        with self.lock:
            if message.received == receipt:
                self.queue.pop(message.id, None)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Outcome(NamedTuple):
    """`response`, `error`, `init`, `timeout`, `memory` or `exit`, and what came with it."""

    kind: str
    value: Any


def resident(pid: int) -> int:
    """Megabytes of memory that a process has; 0 once it has ended, and where the system does not say so."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def trace_header() -> str:
    """Of a new trace that X-Ray has decided to keep."""
    return f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]};Parent={uuid.uuid4().hex[:16]};Sampled=1"


class Sandbox:
    """One process of the real runtime client."""

    def __init__(self, handler: str, environment: Mapping[str, str], timeout: float, memory: int) -> None:
        self.timeout = timeout
        self.memory = memory
        self._todo: queue.Queue[tuple[str, bytes, float]] = queue.Queue()
        self._done: queue.Queue[Outcome] = queue.Queue()
        self._ready = threading.Event()
        self._current = ""
        self._server = serve(self._routes)
        folder = Path(__file__).parent / "loop"
        path = os.pathsep.join(map(str, (folder, *_PATHS)))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", handler],
            cwd=folder,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "EVERSTEP_"))},
                **CREDENTIALS,
                **environment,
                "PYTHONPATH": path,
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}",
                "AWS_LAMBDA_FUNCTION_NAME": "f",
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory),
                "LAMBDA_TASK_ROOT": str(folder),
            },
            stdout=subprocess.DEVNULL if not os.environ.get("EVERSTEP_LOOP_LOG") else None,
            stderr=subprocess.DEVNULL if not os.environ.get("EVERSTEP_LOOP_LOG") else None,
        )

    def _routes(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        match path.removeprefix("/2018-06-01/runtime/").split("/"):
            case ["invocation", "next"]:
                self._ready.set()
                self._current, event, deadline = self._todo.get()
                return 200, {
                    "Lambda-Runtime-Aws-Request-Id": self._current,
                    "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
                    "Lambda-Runtime-Invoked-Function-Arn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f",
                    "Lambda-Runtime-Trace-Id": trace_header(),
                }, event  # fmt: skip
            case ["init", "error"]:
                self._done.put(Outcome("init", json.loads(body)))
                self._ready.set()
                return 202, {}, b"{}"
            case ["invocation", id, kind] if id == self._current:
                self._done.put(Outcome(kind, json.loads(body or b"null")))
                return 202, {}, b"{}"
        return 400, {}, b'{"errorType": "InvalidRequestID"}'

    def invoke(self, event: Any) -> Outcome:
        """Run one invocation, to its answer or to the sandbox's end."""
        began = time.monotonic()
        while not self._ready.wait(0.01):
            if self.process.poll() is not None or time.monotonic() - began > 20:
                return Outcome("init", {"errorType": "Runtime.ExitError"})
        if not self._done.empty():
            return self._done.get()
        began = time.monotonic()
        self._todo.put((str(uuid.uuid4()), json.dumps(event).encode(), time.time() + self.timeout))
        while True:
            try:
                return self._done.get(timeout=0.01)
            except queue.Empty:
                pass
            if self.process.poll() is not None:
                return Outcome("exit", {"errorType": "Runtime.ExitError", "exit": self.process.returncode})
            if resident(self.process.pid) > self.memory:
                return Outcome("memory", {"errorType": "Runtime.ExitError", "exit": -signal.SIGKILL})
            if time.monotonic() - began >= self.timeout:
                return Outcome("timeout", {"errorType": "Sandbox.Timedout"})

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._todo.put(("", b"{}", 0))  # frees the thread that holds `next`
        self._server.shutdown()
        self._server.server_close()


class Function:
    """Sandboxes on demand, and the mapping of a queue to them."""

    def __init__(
        self, cloud: LiveCloud, table: str, *, handler: str, timeout: float, memory: int = 1024, **environment: str
    ) -> None:
        self.cloud = cloud
        self._memory = memory
        self._handler = handler
        self._timeout = timeout
        self._environment = {
            "EVERSTEP_STORE": f"dynamodb://{table}?region={REGION}",
            "EVERSTEP_QUEUE": QUEUE,
            "EVERSTEP_SCHEDULER_ROLE": ROLE,
            "AWS_ENDPOINT_URL_DYNAMODB": dynamodb_url(),
            "AWS_ENDPOINT_URL_SQS": cloud.url,
            "AWS_ENDPOINT_URL_SCHEDULER": cloud.url,
            **environment,
        }
        self._idle: list[Sandbox] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.log: list[str] = []

    def invoke(self, event: Any) -> Outcome:
        with self._lock:
            sandbox = self._idle.pop() if self._idle else None
        if sandbox is None:
            sandbox = Sandbox(self._handler, self._environment, self._timeout, self._memory)
        outcome = sandbox.invoke(event)
        self.log.append(outcome.kind)
        if outcome.kind in ("response", "error"):
            with self._lock:
                self._idle.append(sandbox)
        else:
            sandbox.close()
        return outcome

    def consume(self, parallel: int) -> None:
        """Start the event source mapping: so many messages are under way at a time."""

        def poll() -> None:
            while not self._stop.is_set():
                message = self.cloud.take(0.2)
                if message is None:
                    continue
                receipt, record = message.received, message.record(QUEUE_ARN)
                outcome = self.invoke({"Records": [record]})
                if outcome.kind == "response" and not (outcome.value or {}).get("batchItemFailures"):
                    self.cloud.done(message, receipt)

        self._threads = [threading.Thread(target=poll, daemon=True) for _ in range(parallel)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        for sandbox in self._idle:
            sandbox.close()
