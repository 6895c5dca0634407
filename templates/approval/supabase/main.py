"""The function: `uvicorn main:handler`, on any host that runs a Python HTTP endpoint."""

from __future__ import annotations

from app import app

import everstep_supabase

handler = everstep_supabase.handler(app)
