"""Fixtures of the core's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def play() -> Iterator[Callable[..., Any]]:
    """Plays a body by hand (`tests.core.play.Play`); afterwards every play is replayed from every prefix."""
    from tests.core.play import Play

    made: list[Play] = []

    def make(fn: Callable[..., Any], *args: Any, **options: Any) -> Play:
        one = Play(fn, *args, **options)
        made.append(one)
        return one

    yield make
    for one in made:
        if one.body.loop.refused is None:
            one.replays()
        one.close()
