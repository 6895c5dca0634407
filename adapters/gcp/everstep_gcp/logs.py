"""Log records as Cloud Logging reads them: one line of JSON each, with its severity, its trace and its run.

A delivery belongs to the trace of the request that brought it; every record that is made meanwhile names it, so that
the console shows what one request did. What a workflow logs says which run it belongs to.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, Any, NamedTuple

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_GOOGLE = re.compile(r"([0-9a-fA-F]{32})(?:/(\d+))?(?:;o=(\d))?")
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Trace(NamedTuple):
    """Of a request: the trace's id, the span's, and whether it is kept."""

    id: str
    span: str
    sampled: bool


trace: ContextVar[Trace | None] = ContextVar("everstep_gcp_trace", default=None)
run: ContextVar[str] = ContextVar("everstep_gcp_run", default="")


def trace_of(headers: Mapping[str, str]) -> Trace | None:
    """The trace a request belongs to; names of headers are in lower case."""
    found = _TRACEPARENT.fullmatch(headers.get("traceparent", "").strip())
    if found:
        return Trace(found[1], found[2], bool(int(found[3], 16) & 1))
    found = _GOOGLE.fullmatch(headers.get("x-cloud-trace-context", "").strip())
    if found:
        span = f"{int(found[2]) % 2**64:016x}" if found[2] else ""
        return Trace(found[1].lower(), span, found[3] == "1")
    return None


class CloudFormatter(logging.Formatter):
    """A record as one line of JSON. `project` is named by traces; "" leaves them out."""

    def __init__(self, project: str = "") -> None:
        super().__init__()
        self._project = project

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "severity": record.levelname if record.levelno else "DEFAULT",
            "message": record.getMessage(),
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "logger": record.name,
        }
        extra = {name: value for name, value in vars(record).items() if name not in _PLAIN}
        if extra:
            entry["detail"] = extra
        if record.exc_info:
            # Error Reporting groups by the stack trace, which it looks for in the message.
            entry["message"] += "\n" + self.formatException(record.exc_info)
        found = trace.get()
        if found is not None and self._project:
            entry["logging.googleapis.com/trace"] = f"projects/{self._project}/traces/{found.id}"
            entry["logging.googleapis.com/trace_sampled"] = found.sampled
            if found.span:
                entry["logging.googleapis.com/spanId"] = found.span
        if run.get():
            entry["logging.googleapis.com/labels"] = {"everstep_run": run.get()}
        entry["logging.googleapis.com/sourceLocation"] = {
            "file": record.pathname,
            "line": str(record.lineno),
            "function": record.funcName,
        }
        return json.dumps(entry, ensure_ascii=False, default=str)


def install(project: str, stream: IO[str] | None = None, level: int = logging.INFO) -> logging.Handler:
    """Send every log record of this process to standard output in this form; returns the handler."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stdout)
    handler.setFormatter(CloudFormatter(project))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, logging.StreamHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    return handler
