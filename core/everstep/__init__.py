"""Durable workflows in plain Python (placeholder)."""
