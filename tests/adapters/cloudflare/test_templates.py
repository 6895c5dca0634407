"""The templates in real workerd: what `vendor` puts together, bound as wrangler.toml binds it."""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest

from everstep.cli.new import templates
from everstep_cloudflare.vendor import LEFT_OUT, PACKAGES, narrow, vendor, without_words
from tests.components import requires_component
from tests.templates_by_path import made

from .worker import ROOT, Worker, installed, sources

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


def test_what_is_vendored_is_below_its_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everstep's own part, compressed as it is uploaded and as the platform counts it."""
    raw = vendor(tmp_path / "python_modules", ())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sources(tmp_path / "python_modules").items():
            archive.writestr(name, data)
    size = len(packed.getvalue())
    with capsys.disabled():
        print(f"\nvendored: {size // 1000} KB compressed, {raw // 1000} KB in files")
    assert size < 400_000
    assert raw < 530_000


def imported(name: str, path: Path) -> set[str]:
    """What a module imports when it runs, at its top or later."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    left: list[ast.AST] = [ast.parse(path.read_text())]
    while left:
        match left.pop():
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=rest):
                left += rest
            case ast.Import(names=names):
                found |= {one.name for one in names}
            case ast.ImportFrom(module=module, names=names, level=level):
                base = ".".join([*package[: len(package) - level + 1], *([module] if module else [])] if level else [])
                base = base or module or ""
                found |= {base, *(f"{base}.{one.name}" for one in names)}
            case node:
                left += ast.iter_child_nodes(node)
    return found


def test_what_is_vendored_is_what_a_worker_can_import(tmp_path: Path) -> None:
    """No module too many, and none that another one needs."""
    import everstep
    import everstep.http

    vendor(tmp_path, ())
    paths = {
        ".".join(path.relative_to(tmp_path).with_suffix("").parts).removesuffix(".__init__"): path
        for path in tmp_path.rglob("*.py")
    }
    left_out = {f"everstep.{one.removesuffix('.py').replace('/', '.')}" for one in LEFT_OUT}
    # What users name, found by `__getattr__`, is theirs to import.
    named = {f"everstep.{one}" for one in everstep._LAZY.values()}
    named |= {f"everstep.http.{one}" for one in everstep.http._HOME.values()}
    named |= {name for name in paths if name.startswith("everstep.models")}
    left, reached, missing, refused = [*named, "everstep_cloudflare"], set[str](), set[str](), set[str]()
    while left:
        name = left.pop()
        if name in reached:
            continue
        if name in paths:
            reached.add(name)
            left += [name.rpartition(".")[0], *imported(name, paths[name])]
        elif (ROOT / "core" / f"{name.replace('.', '/')}.py").exists():
            known = any(name == one or name.startswith(f"{one}.") for one in left_out)
            (refused if known else missing).add(name)
    assert missing == set()
    assert sorted(set(paths) - reached) == []
    # Of what is left out these alone are ever asked for: to run without a platform.
    embedded = ("background", "local", "stores.sqlite", "sync", "wakers.local")
    assert sorted(refused) == [f"everstep.{one}" for one in embedded]


@pytest.mark.parametrize("name", [name for name, one in templates().items() if "cloudflare" in one.platforms])
def test_what_a_template_imports_of_everstep_is_vendored(name: str, tmp_path: Path) -> None:
    vendor(tmp_path / "python_modules", ())
    mine = made(name, tmp_path / "mine", "cloudflare")
    for path in [*mine.glob("*.py"), *mine.glob("cloudflare/src/*.py")]:
        for one in imported(path.stem, path):
            if one.partition(".")[0] in ("everstep", "everstep_cloudflare"):
                place = tmp_path / "python_modules" / one.replace(".", "/")
                assert place.is_dir() or place.with_suffix(".py").is_file() or not _is_a_module(one), one


def _is_a_module(name: str) -> bool:
    """`from everstep import App` names what is none."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_words_leave_and_statements_stay_where_they_are() -> None:
    source = (
        '"""Words."""\n\nfrom __future__ import annotations\n\n\n'
        'def f() -> str:  # says\n    """More\n    of them."""\n    return "# no word"\n'
    )
    plain = without_words(source)
    assert plain.splitlines() == [
        '""', "", "from __future__ import annotations", "", "",
        "def f() -> str:", '    ""', "", '    return "# no word"',
    ]  # fmt: skip
    for path in (ROOT / "core" / "everstep").rglob("*.py"):
        wide = without_words(path.read_text())
        thin = narrow(wide)
        assert ast.dump(ast.parse(thin)) == ast.dump(ast.parse(wide))
        assert [bool(line.strip()) for line in thin.splitlines()] == [bool(line.strip()) for line in wide.splitlines()]


def test_an_indent_is_one_space_and_texts_stay() -> None:
    source = (
        'def f(a: int,\n      b: str) -> str:\n    if a:\n        # says\n        return f"""\n'
        '        {a}  {b}\n    """ + (\n            b)\n    return ""\n'
    )
    assert narrow(without_words(source)) == (
        'def f(a: int,\nb: str) -> str:\n if a:\n\n  return f"""\n        {a}  {b}\n    """ + (\nb)\n return ""\n'
    )


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


def test_the_packages_of_the_component_are_those_that_are_vendored() -> None:
    names = {path.name.partition("-")[0].replace("_", "-") for path in installed().packages.glob("*.dist-info")}
    assert {one.partition(">")[0] for one in PACKAGES} <= names
