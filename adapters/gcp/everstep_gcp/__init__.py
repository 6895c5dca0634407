"""Everstep on Google Cloud Functions and Cloud Run, with Firestore as the store and Cloud Tasks as the waker.

Not implemented yet: the package reserves the name and the place. See README.md beside this folder.
"""

from __future__ import annotations

__all__: list[str] = []
