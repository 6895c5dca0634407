"""Everstep on Postgres and Supabase, with one SQL migration as the store and pg_cron with pg_net as the waker."""

from __future__ import annotations

__all__: list[str] = []
