"""Templates as modules: each is an application of its own, and more than one of them is called `app`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"


def made(name: str, folder: Path, platform: str) -> Path:
    """The template as `everstep new` makes it for a platform, in a folder that is not there yet."""
    from everstep.cli.new import create

    create(name, folder, platform)
    return folder


def template(name: str) -> Any:
    """The `app` module of a template, imported once, with the template's own folder on the path as a user has it."""
    known = f"everstep_template_{name}"
    if known not in sys.modules:
        folder = TEMPLATES / name
        spec = importlib.util.spec_from_file_location(known, folder / "app.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[known] = module
        sys.path.insert(0, str(folder))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(folder))
    return sys.modules[known]
