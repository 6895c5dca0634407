"""The Supabase CLI: an npm package that ships its binary as a package, so that nothing else is fetched."""

from __future__ import annotations

from pathlib import Path

from tools.components import install, installed, run

HINT = "tools/components/supabase_cli.py installs it (npm's supabase)"
NPM = ["supabase@3.1.0"]


def find() -> Path | None:
    """The executable."""
    where = installed("supabase-cli", NPM)
    path = where / "node_modules" / ".bin" / "supabase" if where is not None else None
    return path if path is not None and path.exists() else None


def ensure() -> Path | None:
    def build(where: Path) -> None:
        run("npm", "install", "--prefix", where, "--no-fund", "--no-audit", *NPM)

    install("supabase-cli", NPM, build)
    return find()
