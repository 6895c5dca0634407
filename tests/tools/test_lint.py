"""The linter refuses clocks, randomness and the environment in the core, and says what to use; edges may have them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.components import requires_component

ROOT = Path(__file__).resolve().parents[2]
BANNED = (
    "import time; x = time.time()",
    "from time import time; x = time()",
    "import datetime; x = datetime.datetime.now()",
    "from datetime import datetime; x = datetime.utcnow()",
    "import uuid; x = uuid.uuid4()",
    "from uuid import uuid1; x = uuid1()",
    "import random; x = random.random()",
    "from random import choice; x = choice([1])",
    "import os; x = os.environ",
    "from os import getenv; x = getenv('A')",
)

requires_component("ruff", hint="pip install -e '.[lint]'")


def findings(code: str, file: str) -> list[str]:
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--output-format", "json", "--no-cache"]
    done = subprocess.run(
        [*command, "--stdin-filename", file, "-"], input=code, cwd=ROOT, capture_output=True, text=True
    )
    return [finding["message"] for finding in json.loads(done.stdout)]


@pytest.mark.parametrize("code", BANNED)
def test_the_core_may_not(code: str) -> None:
    assert findings(code, "core/everstep/driver.py")


def test_the_message_says_what_to_use_instead() -> None:
    assert "everstep.clock" in findings(BANNED[0], "core/everstep/driver.py")[0]


def test_a_seeded_generator_that_is_passed_in_is_fine() -> None:
    assert findings("import random; x = random.Random(7).random()", "core/everstep/driver.py") == []


@pytest.mark.parametrize(
    "file",
    [
        "core/everstep/clock.py",
        "core/everstep/stores/sqlite.py",
        "core/everstep/wakers/local.py",
        "core/everstep/cli/commands.py",
        "core/everstep/http/app.py",
        "core/everstep/local.py",
        "adapters/aws/everstep_aws/handler.py",
        "tests/core/test_x.py",
        "templates/chess/app.py",
    ],
)
def test_an_edge_may(file: str) -> None:
    assert [finding for code in BANNED for finding in findings(code, file)] == []
