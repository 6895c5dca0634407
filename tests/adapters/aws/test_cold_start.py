"""What a cold start imports: nothing that its invocation does not use."""

from __future__ import annotations

import subprocess
import sys

import pytest

SLOW = ("boto3", "mangum", "starlette", "aws_lambda_powertools", "cryptography", "click", "sqlite3", "email.mime")


def loaded(code: str) -> set[str]:
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(told.stdout.split())


def test_the_package_alone_imports_nothing_of_the_vendor() -> None:
    modules = loaded("import everstep_aws")
    assert "everstep_aws" in modules
    assert not modules & {"botocore", "asyncio", "everstep.driver", *SLOW}


@pytest.mark.parametrize(
    "code",
    [
        "import everstep_aws; everstep_aws.DynamoStore('t', region='eu-central-1').call.client",
        "import os; os.environ['EVERSTEP_STORE'] = 'dynamodb://t?region=eu-central-1'; import everstep, everstep_aws; "
        "everstep_aws.handler(everstep.App('a'))",
    ],
    ids=["client", "handler"],
)
def test_a_client_is_made_by_botocore_without_the_rest(code: str) -> None:
    modules = loaded(code)
    assert "botocore.client" in modules
    assert not modules & {*SLOW}


_COUNTED = """
import sys
counted = [0]
def note(frame, event, argument):
    counted[0] += 1
sys.setprofile(note)
{}
sys.setprofile(None)
print(counted[0])
"""


def test_a_ready_client_takes_at_most_a_third_more_than_a_bare_one() -> None:
    """Calls are counted, in place of seconds: they are the same every time (the README has the seconds)."""

    def calls(code: str) -> int:
        done = subprocess.run([sys.executable, "-c", _COUNTED.format(code)], capture_output=True, text=True, check=True)
        return int(done.stdout)

    bare = calls("import boto3; boto3.client('dynamodb', region_name='eu-central-1')")
    ours = calls("import everstep_aws; everstep_aws.DynamoStore('t', region='eu-central-1').call.client")
    assert 100_000 < ours <= 1.3 * bare


def test_every_name_is_there_whatever_was_imported_first() -> None:
    code = (
        "import everstep_aws.deadletters, everstep_aws.function, everstep_aws.decorator; import everstep_aws as a; "
        "assert all(getattr(a, name) is not None for name in a.__all__); "
        "assert callable(a.handler) and callable(a.durable)"
    )
    loaded(code)
