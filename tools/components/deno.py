"""Deno, which Supabase's Edge Functions run on: from PyPI, the binary itself."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tools.components import install, installed, run

HINT = "tools/components/deno.py installs it (PyPI's deno), or put deno on the PATH"
WHEEL = ["deno==2.9.8"]


def find() -> Path | None:
    """The executable."""
    where = installed("deno", WHEEL)
    if where is not None and (found := next((path for path in where.rglob("bin/deno")), None)):
        return found
    there = shutil.which("deno")
    return Path(there) if there else None


def ensure() -> Path | None:
    def build(where: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        run(*command, "--target", where, *WHEEL)

    install("deno", WHEEL, build)
    return find()
