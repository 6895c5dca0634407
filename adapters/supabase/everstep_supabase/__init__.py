"""Everstep on Postgres and Supabase, with one SQL migration as the store and pg_cron with pg_net as the waker."""

from __future__ import annotations

from .store import PostgresStore, open_store
from .transaction import transaction

__all__ = ["PostgresStore", "open_store", "transaction"]
