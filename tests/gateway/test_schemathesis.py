"""Schemathesis over the API description: no 5xx, no status that is not described, no answer of another shape.

EVERSTEP_SCHEMATHESIS_EXAMPLES=500 makes it long (`make soak` does).
"""

from __future__ import annotations

import os
import urllib.error
from collections.abc import Iterator

import pytest

from tests.components import requires_component
from tests.gateway.support import Dev, dev

requires_component("schemathesis", hint="pip install -e '.[test]'")

import schemathesis  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi import checks  # noqa: E402

from everstep.http.openapi import describe  # noqa: E402

EXAMPLES = int(os.environ.get("EVERSTEP_SCHEMATHESIS_EXAMPLES", "12"))
CHECKS = (
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)
pytestmark = pytest.mark.xdist_group("gateway-schemathesis")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with dev(tmp_path_factory.mktemp("gateway"), EVERSTEP_SECRET="a secret of more than 16 bytes") as running:
        yield running


ENDLESS = ("/events", "/poll/{group}/{id}")
OPERATIONS = [
    (method, path)
    for path, item in describe()["paths"].items()
    for method in item
    if method in ("get", "post", "delete") and path not in ENDLESS
]


@pytest.fixture(scope="module")
def api(server: Dev) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_described(api: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode) -> None:
    # Its own integration with pytest lags behind pytest's releases.
    operation = api[path][method]
    if mode is GenerationMode.NEGATIVE and not (operation.body or len(operation.query)):
        mode = GenerationMode.POSITIVE  # there is nothing to get wrong

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=list(CHECKS))

    ask()


def test_a_stream_is_described_where_it_is_refused(server: Dev) -> None:
    for path in ("/events?limit=x", "/events?state=x", "/events?nothing=1"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            server.get(path)
        assert caught.value.code == 400


def test_the_server_is_sound_afterwards(server: Dev) -> None:
    assert server.process.poll() is None
    assert server.get("/promises")["promises"] is not None
