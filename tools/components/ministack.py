"""ministack: an emulator of AWS that executes Lambda functions, in an environment of its own, for it pins botocore.

It runs handlers with its own interpreter and packages, so that what the handler imports is installed with it.
"""

from __future__ import annotations

from pathlib import Path

from tools.components import virtualenv, virtualenv_found

HINT = "python -m tools.components (pip installs ministack into .components/)"
NAME = "ministack"
REQUIREMENTS = (
    "ministack==1.5.33",
    "boto3==1.43.106",
    "aws-sam-translator==1.115.0",
    "aws-lambda-powertools>=3.0",
    "mangum>=0.17",
    "starlette>=0.40",
    "cronsim>=2.6",
    "tzdata>=2024.1",
)


def find() -> Path | None:
    """The interpreter that can run ministack, or None."""
    return virtualenv_found(NAME, REQUIREMENTS)


def ensure() -> Path | None:
    """The same, installed first where it is missing. Raises Missing."""
    return virtualenv(NAME, REQUIREMENTS)
