"""Seeded faults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .world import World


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, and how often."""

    def install(self, world: World) -> None:
        """Let `world` go wrong."""
