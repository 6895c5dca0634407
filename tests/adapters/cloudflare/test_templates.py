"""The templates in real workerd: what `vendor` puts together, bound as wrangler.toml binds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from everstep_cloudflare.vendor import vendor
from tests.components import requires_component
from tests.templates_by_path import made

from .worker import Worker, installed, sources

pytestmark = pytest.mark.xdist_group("workerd again")

NAMES = ("countdown", "chess")


def uploaded(name: str, folder: Path, options: str = "") -> tuple[Worker, dict[str, bytes]]:
    """The Worker of a template, as its vendor.sh puts it together; the packages come from the component.

    `options` are given to `handler` beside those of entry.py.
    """
    copy = made(name, folder / name, "cloudflare")
    here = copy / "cloudflare"
    for file in ("app.py", "players.py"):
        if (copy / file).exists():
            shutil.copy(copy / file, here / "src")
    vendor(here / "python_modules", ())
    if (copy / "board").exists():
        shutil.copytree(copy / "board", here / "python_modules" / "board")
    config = tomllib.loads((here / "wrangler.toml").read_text())
    objects = {one["name"]: one["class_name"] for one in config["durable_objects"]["bindings"]}
    assert sorted(config["migrations"][0]["new_sqlite_classes"]) == sorted(objects.values())
    assert config["main"] == "src/entry.py"
    files = {
        **sources(here / "src"),
        **sources(installed().packages, "python_modules/", skip=("bin",)),
        **sources(here / "python_modules", "python_modules/"),
    }
    if options:
        plain = files["entry.py"].decode()
        assert plain.count(" = handler(app,") == 1
        files["entry.py"] = plain.replace(" = handler(app,", f" = handler(app, {options},").encode()
    (folder / "worker").mkdir()
    return Worker(folder / "worker", files, objects=objects, start=False), files


def test_the_countdown_counts_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worker, _ = uploaded("countdown", tmp_path)
    with worker.start():
        worker.post("/workflows/countdown", {"id": "c1", "args": [5, 0.05]})
        assert worker.result("c1") == "counted down from 5"
        told = [line for line in worker.log.read_text().splitlines() if line.startswith("notification")]
        with capsys.disabled():
            print(f"\nthe countdown template: {worker.boot:.2f} s to Python's first answer, {worker.memory()} MiB")
    said = ("5", "4", "3", "2", "1", "Done")
    assert told == [f"notification c1.{2 * n + 1}: {text}" for n, text in enumerate(said)]


def seen(worker: Worker) -> tuple[int, int]:
    """Game and ply of the picture that everybody sees; the next game may have begun."""
    status, found = worker.call("GET", "/board.json", headers={"authorization": ""})
    fields = found["fields"] if status == 200 else {}
    return int(fields.get("game", {}).get("integerValue", 0)), int(fields.get("ply", {}).get("integerValue", 0))


@pytest.mark.parametrize("options", ["", "steps_per_invocation=1"])
def test_a_game_of_twenty_plies_and_the_next_one(tmp_path: Path, options: str) -> None:
    worker, _ = uploaded("chess", tmp_path, options)
    with worker.start():
        worker.post("/workflows/chess", {"id": "game", "args": [1, 0.01, 20]})
        assert worker.result("game") == "1/2-1/2"
        until = time.monotonic() + 10
        while not seen(worker) >= (1, 20) and time.monotonic() < until:
            time.sleep(0.1)
        assert seen(worker) >= (1, 20)
        assert 'data-document="/board.json"' in worker.call("GET", "/board", headers={"authorization": ""})[1]
        found = worker.get("/promises?prefix=game")["promises"]
        assert [one["id"][:6] for one in found] == ["game", "game~d"]
        worker.post(f"/promises/{found[1]['id']}/cancel")


@pytest.mark.parametrize("name", NAMES)
def test_everstep_new_brings_the_platform_along(name: str, tmp_path: Path) -> None:
    requires_component("click")
    done = subprocess.run(
        [sys.executable, "-m", "everstep.cli", "new", name, "demo", "--platform", "cloudflare"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    here = tmp_path / "demo" / "cloudflare"
    for file in ("wrangler.toml", "README.md", "src/entry.py", "vendor.sh", "deploy.sh", "teardown.sh"):
        assert (here / file).is_file()
    assert os.access(here / "deploy.sh", os.X_OK)
    assert not (tmp_path / "demo" / "aws").exists()
