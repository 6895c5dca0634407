"""Logs, metrics and traces through AWS Powertools, where the function asks for them.

The driver tells what happens once and only when it is real: a replay repeats nothing (the contract's `ctx.log`), so
nothing here is counted twice. Numbers are summed up over an invocation and leave in one line of the embedded metric
format; Powertools is imported when the sandbox starts, and its X-Ray tracer only where X-Ray's SDK is there.
"""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_METRICS = {
    "step": "Steps",
    "failed": "StepFailures",
    "replayed": "Replays",
    "resumed": "Resumes",
    "suspended": "Suspensions",
    "settled": "Settled",
    "halted": "Halts",
    "lost": "LeasesLost",
}
_SAID = {"halted": "error", "failed": "warning", "put off": "warning", "lost": "warning", "settled": "info"}
NAMESPACE = "Everstep"


class Observer:
    """What Powertools is told. Raises ImportError where it is not installed.

    Args:
        service: by default POWERTOOLS_SERVICE_NAME.
    """

    def __init__(self, service: str | None = None) -> None:
        from aws_lambda_powertools import Logger, Metrics

        self.logger: Any = Logger(service=service, name="everstep_aws")
        self.metrics: Any = Metrics(
            namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE", NAMESPACE), service=service
        )
        self.tracer: Any = None
        if importlib.util.find_spec("aws_xray_sdk") is not None:
            from aws_lambda_powertools import Tracer

            self.tracer = Tracer(service=service, auto_patch=False)
        self._counts: Counter[str] = Counter()
        self._cold = True

    def tell(self, kind: str, id: str, /, **detail: Any) -> None:
        """The driver's `tell`."""
        if kind in _METRICS:
            self._counts[_METRICS[kind]] += 1
        if kind in _SAID:
            getattr(self.logger, _SAID[kind])(f"{kind}: {id}", extra={"run": id, **detail})

    @contextmanager
    def invocation(self, context: Any) -> Iterator[None]:
        """Around one invocation."""
        self.logger.append_keys(request_id=context.aws_request_id)
        if self._cold:
            self._counts["ColdStarts"] += 1
            self._cold = False
        try:
            with self._segment():
                yield
        finally:
            for name, value in self._counts.items():
                self.metrics.add_metric(name=name, unit="Count", value=value)
            if self._counts:
                self.metrics.flush_metrics()
            self._counts.clear()

    @contextmanager
    def _segment(self) -> Iterator[None]:
        if self.tracer is None:
            yield
            return
        with self.tracer.provider.in_subsegment("## everstep") as segment:
            try:
                yield
            finally:
                for name, value in self._counts.items():
                    segment.put_annotation(name, value)


def observer(wanted: bool | None) -> Observer | None:
    """An observer where it is wanted; None asks the environment."""
    if wanted is None:
        wanted = bool(os.environ.get("POWERTOOLS_SERVICE_NAME")) and _installed()
    return Observer() if wanted else None


def _installed() -> bool:
    return importlib.util.find_spec("aws_lambda_powertools") is not None
