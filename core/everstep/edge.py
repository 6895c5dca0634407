"""Entropy, read at the edge alone: an id that nobody gave."""

from __future__ import annotations

import os


def new_id(name: str) -> str:
    """An id for a run that was started without one."""
    return f"{name}-{os.urandom(8).hex()}"
