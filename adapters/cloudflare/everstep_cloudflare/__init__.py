"""Everstep on Cloudflare Python Workers, with one Durable Object per origin as the store and its alarm as the waker.

Not implemented yet: the package reserves the name and the place. See README.md beside this folder.
"""

from __future__ import annotations

__all__: list[str] = []
