"""The conformance suites, each case inside real workerd with CPython in it, on real objects and alarms; and the
protocol's answers there, compared with the memory oracle's, and histories of eight clients.

EVERSTEP_AGREEMENT_REQUESTS and EVERSTEP_HISTORIES make it long.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from everstep.testing.conformance import HandlerSuite, StoreSuite, WakerSuite
from tests.gateway.agreement import parts, wanted
from tools.components import ROOT

from .worker import SITES, Worker, sources, vendored

pytestmark = pytest.mark.xdist_group("workerd")

SUITES = {
    "Stores": StoreSuite,
    "Wakers": WakerSuite,
    "Handlers": HandlerSuite,
    "HandlersStepByStep": HandlerSuite,
    "HandlersOnAnUnsteadyClock": HandlerSuite,
}
CASES = [(name, test) for name, suite in SUITES.items() for test in dir(suite) if test.startswith("test_")]


GATEWAY = (
    "__init__.py",
    *(f"gateway/{name}.py" for name in ("__init__", "agreement", "histories", "linear", "requests", "servers")),
)
KIT = ("everstep.stores.memory", "everstep.testing.conformance.differential", "everstep.wakers.local")
PART = 150
"""Requests of a call, which may last a minute."""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    gateway = {f"python_modules/tests/{name}": (ROOT / "tests" / name).read_bytes() for name in GATEWAY}
    files = {**sources(SITES / "suites"), **vendored(*KIT), **gateway}
    with Worker(tmp_path_factory.mktemp("suites"), files) as running:
        yield running


@pytest.mark.parametrize(("suite", "test"), [*CASES, ("Stores", "test_it_agrees_with_the_memory_store")])
def test_suite(worker: Worker, suite: str, test: str) -> None:
    status, answer = worker.call("GET", f"/?suite={suite}&test={test}")
    assert (status, answer) == (200, "passed"), f"{answer}\n{worker.log.read_text()[-2000:]}"


def test_every_answer_agrees_with_the_oracle(worker: Worker) -> None:
    met: set[str] = set()
    requests = wanted(PART)
    for done, (seed, size) in enumerate(parts(requests, most=PART)):
        asked = f"/?suite=Stores&test=every_answer_agrees_with_the_oracle&requests={size}&seed={seed}"
        status, answer = worker.call("GET", asked)
        assert status == 200, f"{answer}\n{worker.log.read_text()[-2000:]}"
        met.update(answer.split())
        if requests > PART and done % 10 == 9:
            print(f"{(done + 1) * PART} requests agree", flush=True)
    assert met >= {"200", "404", "409"}


def test_histories_are_linearizable(worker: Worker) -> None:
    for seed in range(1, 1 + int(os.environ.get("EVERSTEP_HISTORIES", "8")) // 4):
        status, answer = worker.call("GET", f"/?suite=Stores&test=histories_are_linearizable&count=4&seed={seed}")
        assert status == 200, f"{answer}\n{worker.log.read_text()[-2000:]}"
        assert int(answer) > 4
