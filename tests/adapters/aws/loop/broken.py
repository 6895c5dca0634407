"""A function that cannot be imported."""

from __future__ import annotations

raise RuntimeError("raised at import")
