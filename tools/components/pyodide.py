"""CPython by Pyodide, for Deno: npm's package, and its standard library byte-compiled by the template's build.ts."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import NamedTuple

from tools.components import ROOT, Missing, deno, install, installed, run

HINT = "run `python -m tools.components` (it needs npm, and Deno, which it installs)"
FUNCTION = ROOT / "templates/countdown/supabase/supabase/functions/everstep-python"
NODE = ("pyodide@314.0.6",)


class Pyodide(NamedTuple):
    """Where everything lies."""

    folder: Path

    @property
    def config(self) -> Path:
        """A deno.json that finds Pyodide here, without a network."""
        return self.folder / "deno.json"

    @property
    def library(self) -> Path:
        """The byte-compiled standard library."""
        return next((self.folder / "build").glob("python-*.zip"))


def definition() -> list[str]:
    return [*NODE, hashlib.sha256((FUNCTION / "build.ts").read_bytes()).hexdigest()]


def find() -> Pyodide | None:
    """Return what is installed, or None."""
    where = installed("pyodide", definition())
    return Pyodide(where) if where is not None and deno.find() is not None else None


def ensure() -> Pyodide | None:
    """Return Pyodide, installed first if it is missing. Raises Missing."""
    return Pyodide(install("pyodide", definition(), _build))


def _build(where: Path) -> None:
    binary = deno.ensure()
    if binary is None:
        raise Missing("there is no Deno")
    (where / "package.json").write_text('{"private": true}\n')
    run("npm", "install", "--no-audit", "--no-fund", "--save-exact", "--loglevel=error", *NODE, cwd=where)
    module = (where / "node_modules/pyodide/pyodide.mjs").as_uri()
    (where / "deno.json").write_text(json.dumps({"imports": {"pyodide": module}}))
    shutil.copyfile(FUNCTION / "build.ts", where / "build.ts")
    run(binary, "run", "-A", "--no-remote", "--config", where / "deno.json", where / "build.ts", cwd=where)
