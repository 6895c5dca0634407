"""Everstep on Cloudflare Python Workers: a Durable Object for each run is its store, and the object's alarm its waker.

from everstep_cloudflare import handler
from app import app

Default, Run, Index = handler(app)
"""

from __future__ import annotations

from .auth import access, everybody
from .handler import Worker, handler
from .store import AlarmWaker, DurableObjectStore

__all__ = ["handler", "Worker", "access", "everybody", "DurableObjectStore", "AlarmWaker"]
