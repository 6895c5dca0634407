"""AWS SAM's command line and cfn-lint, in an environment of their own: they pin a good part of PyPI."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tools.components import virtualenv, virtualenv_found

HINT = "python -m tools.components (pip installs aws-sam-cli and cfn-lint into .components/)"
NAME = "sam"
REQUIREMENTS = ("aws-sam-cli==1.170.0", "cfn-lint==1.58.0")


class Sam(NamedTuple):
    """Two executables."""

    sam: Path
    cfn_lint: Path


def _of(python: Path | None) -> Sam | None:
    return None if python is None else Sam(python.with_name("sam"), python.with_name("cfn-lint"))


def find() -> Sam | None:
    """Both, or None."""
    return _of(virtualenv_found(NAME, REQUIREMENTS))


def ensure() -> Sam | None:
    """Both, installed first where they are missing. Raises Missing."""
    return _of(virtualenv(NAME, REQUIREMENTS))
