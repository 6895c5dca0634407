"""Systems 3, 39 and 46 in real workerd, by the modules that every platform runs, and a template that brings a file:
killed by SIGKILL, and gone on with by another process on the same storage."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter
from pathlib import Path

import pytest

from everstep_cloudflare.vendor import vendor
from tests.systems import test_03_countdown as system_3
from tests.systems import test_39_encryption as system_39
from tests.systems import test_46_deep_research as system_46
from tests.templates_by_path import made
from tools import gallery

from .worker import CLASSES, Worker, installed, sources

pytestmark = pytest.mark.xdist_group("workerd again")

TELLS = {
    "research": """
from app import app, scripted
from everstep.models import Scripted

def told(messages, tools):
    print("model", messages[1].text, sum(one.role == "tool" for one in messages), flush=True)
    return scripted(messages, tools)

app.provide(Scripted(told))
""",
    "batch": """
from app import Table, app

class Told(Table):
    def insert(self, records):
        print("records", *[one["id"] for one in records], flush=True)

app.provide(Told())
""",
}
"""What stands before the handler in entry.py: effects go to the log."""
HANDLER = "from everstep_cloudflare import handler\nDefault, Run, Index = handler(app, steps_per_invocation=STEPS)\n"


def deployed(folder: Path, files: dict[str, bytes], tells: str = "", steps: int | None = None) -> Worker:
    """A Worker of these modules, with what is vendored and what the platform's packages are."""
    (folder / "src").mkdir()
    entry = tells + HANDLER.replace("STEPS", str(steps)) if tells else files["entry.py"].decode()
    for name in ("app.py", "entry.py"):
        (folder / "src" / name).write_bytes({**files, "entry.py": entry.encode()}[name])
    vendor(folder / "python_modules", (), app=folder / "src")
    whole = {
        **sources(installed().packages, "python_modules/", skip=("bin",)),
        **sources(folder / "python_modules", "python_modules/"),
        **files,
        "entry.py": entry.encode(),
    }
    (folder / "worker").mkdir()
    return Worker(folder / "worker", whole, objects=CLASSES, start=False)


def said(worker: Worker, word: str) -> list[str]:
    lines = worker.log.read_text().splitlines() if worker.log.exists() else []
    return [line.partition(" ")[2] for line in lines if line.startswith(f"{word} ")]


def test_the_countdowns_journal_is_the_embedded_one_though_killed_after_the_second_notification(tmp_path: Path) -> None:
    """System 3."""
    wanted = asyncio.run(system_3.on_a_file(tmp_path))
    files = sources(made("countdown", tmp_path / "mine", "cloudflare") / "cloudflare" / "src")
    files["app.py"] = (tmp_path / "mine" / "app.py").read_bytes()
    worker = deployed(tmp_path, files)
    with worker.start():
        worker.post("/workflows/countdown", {"id": "c", "args": [5, 1.0]})
        until = time.monotonic() + 60
        while len(said(worker, "notification")) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.2)
    with worker.start():
        assert worker.result("c") == "counted down from 5"
        tree = worker.get("/promises/c/tree")
    steps = [one for one in tree["children"] if one["kind"] == "step"]
    assert [(one["id"], one["name"], one["args"], one["value"]) for one in steps] == wanted
    assert [line.partition(": ")[2] for line in said(worker, "notification")] == system_3.WANTED


@pytest.mark.parametrize("steps", [None, 1], ids=["until blocked", "step by step"])
def test_research_killed_again_and_again_says_the_same_and_asks_nothing_recorded_again(
    steps: int | None, tmp_path: Path
) -> None:
    """System 46."""
    page = next(page.text for page in gallery.pages() if page.path.name.startswith("46-"))
    program = page.partition("```python of ")[2].partition("\n")[2].partition("```")[0]
    worker = deployed(tmp_path, {"app.py": program.encode()}, TELLS["research"], steps)
    moments = (0.05, 0.2)
    for at, moment in enumerate(moments):
        with worker.start():
            worker.post("/workflows/research", {"id": f"r{at}", "args": ["tides", 2]})
            time.sleep(moment)
    with worker.start():
        for at in range(len(moments)):
            assert worker.result(f"r{at}") == system_46.ANSWER[2]
    asked = Counter(said(worker, "model"))
    assert len(asked) == system_46.CALLS[2]
    least = system_46.CALLS[2] * len(moments)
    under_way = sum(range(1, len(moments) + 1))  # at each death one run more
    assert least <= asked.total() <= least + 4 * under_way, "again what was under way, four at once in a run at most"


SHOP = """
import hashlib
import hmac
import os
from typing import TypedDict

from everstep import App, Codec, Context, Retry


class Sealed:
    # What the standard library has to encrypt and to authenticate with: AES-GCM's library is compiled.
    key = bytes(range(32))

    def _stream(self, nonce, size):
        parts = (hmac.digest(self.key, nonce + bytes([at // 256, at % 256]), "sha256") for at in range(size // 32 + 1))
        return b"".join(parts)[:size]

    def encrypt(self, text):
        nonce = os.urandom(16)
        hidden = bytes(a ^ b for a, b in zip(text, self._stream(nonce, len(text))))
        return "k1", nonce + hidden + hmac.digest(self.key, nonce + hidden, "sha256")

    def decrypt(self, key, sealed):
        nonce, hidden, tag = sealed[:16], sealed[16:-32], sealed[-32:]
        if key != "k1" or not hmac.compare_digest(tag, hmac.digest(self.key, nonce + hidden, "sha256")):
            raise ValueError("another key")
        return bytes(a ^ b for a, b in zip(hidden, self._stream(nonce, len(hidden))))


def did(what):
    pass
"""


@pytest.mark.parametrize(("codec", "found"), [("Codec(encryptor=Sealed())", 0), ("Codec()", 3)], ids=["sealed", "not"])
def test_nothing_of_what_is_encrypted_can_be_read_in_the_objects_files(codec: str, found: int, tmp_path: Path) -> None:
    """System 39. Without an encryptor the same search finds it all."""
    parts = [inspect.getsource(one) for one in (system_39.CardDeclined, system_39.Paid, system_39.shop)]
    program = "\n\n".join([SHOP, *parts, f"app = shop({codec})\n"])
    entry = "from app import app\n" + HANDLER.replace("STEPS", "None")
    worker = deployed(tmp_path, {"app.py": program.encode(), "entry.py": entry.encode()})
    with worker.start():
        worker.post("/workflows/pay", {"id": "o1", "args": [system_39.CARD, system_39.NAME, 4200]})
        until = time.monotonic() + 60
        while worker.call("GET", "/promises/o1.4")[0] != 200 and time.monotonic() < until:
            time.sleep(0.05)
        worker.post("/promises/o1.4/resolve", {"value": system_39.SECRET})
        assert worker.result("o1") == system_39.RESULT
    text = system_39.read_everything(worker.folder / "storage").decode("utf-8", "replace")
    assert "o1.4" in text, "it is there that its rows are"
    hits = system_39.in_clear([text, worker.log.read_text()])
    assert len(hits) >= found
    assert found or hits == []


def test_a_template_that_brings_a_file_finds_it(tmp_path: Path) -> None:
    mine = made("batch", tmp_path / "mine", "cloudflare")
    files = {
        "app.py": (mine / "app.py").read_bytes(),
        "python_modules/records.csv": (mine / "records.csv").read_bytes(),  # as vendor.sh has it
    }
    with deployed(tmp_path, files, TELLS["batch"]).start() as worker:
        worker.post("/workflows/load", {"id": "l1", "args": ["records.csv"]})
        assert worker.result("l1") == {"imported": 51, "refused": 2}
        told = [id for line in said(worker, "records") for id in line.split()]
    assert len(told) == len(set(told)) == 51
