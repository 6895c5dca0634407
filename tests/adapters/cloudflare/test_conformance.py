"""The conformance suites, each case inside real workerd with CPython in it, on real objects and alarms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from everstep.testing.conformance import HandlerSuite, StoreSuite, WakerSuite

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


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    files = {**sources(SITES / "suites"), **vendored()}
    with Worker(tmp_path_factory.mktemp("suites"), files) as running:
        yield running


@pytest.mark.parametrize(("suite", "test"), [*CASES, ("Stores", "test_it_agrees_with_the_memory_store")])
def test_suite(worker: Worker, suite: str, test: str) -> None:
    status, answer = worker.call("GET", f"/?suite={suite}&test={test}")
    assert (status, answer) == (200, "passed"), f"{answer}\n{worker.log.read_text()[-2000:]}"
