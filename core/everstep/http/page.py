"""The live page: one file, no address but ours, and a policy that lets only its own script run."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import re
from importlib.resources import files

from starlette.responses import HTMLResponse, Response


@functools.cache
def _load() -> tuple[str, dict[str, str]]:
    folder = files("everstep.http")
    page, small = folder.joinpath("page.html"), folder.joinpath("page.html.gz")
    # Compressed is how a package travels that is to be small.
    text = (page.read_bytes() if page.is_file() else gzip.decompress(small.read_bytes())).decode()
    policy = {"script": _hashes(text, "script"), "style": _hashes(text, "style")}
    headers = {
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "content-security-policy": (
            f"default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            f"frame-ancestors 'none'; script-src {policy['script']}; style-src {policy['style']}"
        ),
    }
    return text, headers


def _hashes(text: str, tag: str) -> str:
    bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'" for body in bodies)


def page() -> Response:
    text, headers = _load()
    return HTMLResponse(text, headers=headers)
