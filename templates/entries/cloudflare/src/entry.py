"""The Worker: the same workflows as everywhere.

What stands in for the outside world writes files, and a Worker's do not outlive it: provide what really sends, books or
files before you rely on it.
"""

from __future__ import annotations

from app import app

from everstep_cloudflare import handler

Default, Run, Index = handler(app)
