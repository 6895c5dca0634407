"""The official DynamoDB Local, as npm's amplify-dynamodb-simulator carries it. It needs Java 17 or newer.

Its licence forbids passing it on: it is fetched by the test set-up and never committed. What is used is its jar alone,
started by tests/adapters/aws.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tools.components import Missing, apt, installed, npm

HINT = "install Java 17 and run: python -m tools.components (npm fetches amplify-dynamodb-simulator)"
PACKAGE = ("amplify-dynamodb-simulator@2.9.30",)
NAME = "dynamodb-local"


class DynamoDBLocal(NamedTuple):
    """A `java` that is new enough, and the folder that holds DynamoDBLocal.jar and its native library."""

    java: str
    folder: Path


def _java() -> str | None:
    java = shutil.which("java")
    if java is None:
        return None
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r'version "(\d+)', told)
    return java if version and int(version[1]) >= 17 else None


def _folder(where: Path) -> Path:
    return where / "node_modules" / "amplify-dynamodb-simulator" / "emulator"


def find() -> DynamoDBLocal | None:
    """Java and the jar, or None."""
    where, java = installed(NAME, PACKAGE), _java()
    return DynamoDBLocal(java, _folder(where)) if where and java else None


def ensure() -> DynamoDBLocal | None:
    """The same, installed first where that is ours to do. Raises Missing."""
    if _java() is None:
        apt("openjdk-17-jre-headless")
    java = _java()
    if java is None:
        raise Missing(HINT)
    where = npm(NAME, PACKAGE)
    if not (_folder(where) / "DynamoDBLocal.jar").is_file():
        raise Missing(f"{PACKAGE[0]} holds no DynamoDBLocal.jar")
    return DynamoDBLocal(java, _folder(where))
