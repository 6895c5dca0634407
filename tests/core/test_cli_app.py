"""Everything around an App: loading it, templates, `check`, help and versions."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from everstep.cli.loading import CannotLoad
from everstep.errors import StoreError
from tests.core.cli_support import ROOT, Cli, make_cli


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return make_cli(tmp_path, monkeypatch, capsys)


def test_an_app_is_found_by_module_and_by_file(cli: Cli) -> None:
    folder = cli.folder / "sub"
    folder.mkdir()
    (folder / "filed.py").write_text("import beside\nfrom everstep import App\napp = App('a')\nmore = App('b')\n")
    (folder / "beside.py").write_text("")
    (folder / "inmodule.py").write_text("from everstep import App\nclass box:\n    app = App('a')\n")
    (folder / "__init__.py").write_text("")

    for target in (cli.app, cli.module, f"{cli.module}.py", f"{cli.module}.py:app", f"{cli.folder / cli.module}.py"):
        assert "nothing found" in cli("check", target).err
    for target in ("sub/filed.py", "sub/filed.py:more", "sub.inmodule:box.app"):
        cli("check", target)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nowhere", "there is no module 'nowhere'"),
        ("nowhere:app", "there is no module 'nowhere'"),
        ("nowhere.deep:app", "there is no module 'nowhere'"),
        ("nowhere.py", "there is no file nowhere.py"),
        ("a/b:app", "names no module"),
        ("MODULE:apps", "has no attribute 'apps'; it has MODULE:app"),
        ("MODULE:other", "MODULE:other is a int, not an App; it has MODULE:app"),
        ("MODULE:App", "is an App class, not an App"),
        ("raises", "RuntimeError: at import (FOLDER/raises.py:2)"),
        ("syntax", "FOLDER/syntax.py:1"),
        ("needs", "No module named 'absent_package'"),
        ("needs", "is absent_package installed"),
        ("twice", "step 'f' is registered twice"),
        ("empty", "write app = App(...) there"),
        ("leaves", "leaves cannot be imported: SystemExit: no configuration (FOLDER/leaves.py:2)"),
        ("leaves.py", "leaves.py cannot be imported: SystemExit"),
    ],
)
def test_what_cannot_be_loaded_is_one_line_that_says_where(cli: Cli, target: str, words: str) -> None:
    Path("raises.py").write_text("def f():\n    raise RuntimeError('at import')\nf()\n")
    Path("syntax.py").write_text("def :\n")
    Path("leaves.py").write_text("import sys\nsys.exit('no configuration')\n")
    Path("needs.py").write_text("import absent_package\n")
    Path("empty.py").write_text("")
    Path("twice.py").write_text(
        "from everstep import App\napp = App('a')\n@app.step\ndef f(): ...\n@app.step\ndef f(): ...\n"
    )
    done = cli("check", target.replace("MODULE", cli.module), code=2)

    assert words.replace("MODULE", cli.module).replace("FOLDER", str(cli.folder)) in done.err
    assert done.err.count("\n") == 1


def test_check_names_findings_with_their_lines(cli: Cli) -> None:
    Path("bad.py").write_text(
        "import time\nfrom everstep import App\napp = App('a')\n\n"
        "@app.workflow\nasync def w(ctx):\n    return time.time()\n"
    )
    done = cli("check", "bad:app", code=1)
    assert done.out == "bad.py:7: w: time.time: the clock differs in every replay; instead: ctx.now()\n"
    assert done.err == "1 workflow checked, 1 found\n"
    (finding,) = cli("check", "bad:app", "--json", code=1).json["findings"]
    assert (finding["line"], finding["workflow"], finding["instead"]) == (7, "w", "ctx.now()")


@pytest.mark.parametrize("name", sorted(path.parent.name for path in ROOT.glob("templates/*/app.py")))
def test_a_template_becomes_a_folder_of_ones_own(cli: Cli, name: str) -> None:
    files = cli("new", name, "mine", "--json").json["files"]

    assert {"app.py", "README.md"} <= set(files)
    assert not [one for one in files if one.startswith(("aws/", "gcp/")) or "__pycache__" in one or ".db" in one]
    assert (cli.folder / "mine" / "app.py").read_text() == (ROOT / "templates" / name / "app.py").read_text()


def test_templates_are_listed_with_what_they_are_about(cli: Cli) -> None:
    listed = {one["name"]: one for one in cli("new", "--list", "--json").json}

    assert {"countdown", "chess"} <= set(listed)
    assert all(one["about"] and "local" in one["platforms"] for one in listed.values())
    assert "countdown" in cli("new", "--list").out


def test_a_template_never_overwrites(cli: Cli) -> None:
    Path("full").mkdir()
    Path("full/file").write_text("mine")
    Path("file").write_text("mine")
    Path("empty").mkdir()

    assert "not an empty folder" in cli("new", "countdown", "full", code=2).err
    assert "not an empty folder" in cli("new", "countdown", "file", code=2).err
    assert list(Path("full").iterdir()) == [Path("full/file")]
    cli("new", "countdown", "empty")
    assert Path("empty/app.py").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nope", "x"), "there is no template 'nope'; there are"),
        (("countdown",), "name a template and a folder"),
        ((), "name a template and a folder"),
        (("countdown", "x", "--platform", "azure"), "azure"),
    ],
)
def test_a_template_that_cannot_be_made_is_named(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    assert words in cli("new", *arguments, code=2).err
    assert not Path("x").exists()


def test_mcp_offers_something(cli: Cli) -> None:
    assert "name an App to offer, or --bash, or both" in cli("mcp", code=2).err


@pytest.mark.parametrize("arguments", [("nope",), ("run",), ("get",), ("ls", "--limit", "0"), ("--nope",)])
def test_wrong_usage_is_code_2_and_points_to_help(cli: Cli, arguments: tuple[str, ...]) -> None:
    told = cli(*arguments, code=2).err
    assert "--help" in told
    assert ".;" not in told


def test_what_a_driver_says_in_lines_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(url: str) -> NoReturn:
        raise StoreError("db:5432: connection refused\n\tIs the server running?")

    monkeypatch.setattr("everstep.stores.open_store", opened)
    told = cli("ls", "--store", "memory:", code=2).err
    assert told == "everstep: db:5432: connection refused Is the server running?\n"


def test_without_a_command_the_help_is_shown_as_it_is(cli: Cli) -> None:
    for group in ((), ("schedule",)):
        done = cli(*group, code=2)
        assert "\nCommands:\n" in done.out
        assert done.err == ""


def test_a_line_of_help_is_whole(cli: Cli) -> None:
    assert "..." not in cli("--help").out.partition("Commands:")[2]


def test_help_names_every_command_of_the_contract(cli: Cli) -> None:
    text = cli("--help").out

    for name in (
        *("new", "dev", "run", "start", "get", "resolve", "reject", "cancel", "tree", "ls", "schedule"),
        *("verify", "sweep", "cost", "check", "mcp", "bash", "halt", "continue"),
    ):
        assert f"\n  {name} " in text
        cli(name, "--help")


def test_the_version_is_told_before_anything_is_imported(cli: Cli) -> None:
    assert cli("--version").out == f"everstep {importlib.metadata.version('everstep')}\n"
    code = (
        "import sys, json; from everstep.cli import main; main(['--version']);"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert loaded & {"click", "rich", "starlette", "uvicorn", "sqlite3", "asyncio"} == set()


def test_without_its_libraries_the_command_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; from everstep.cli import main; sys.exit(main(['ls']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "pip install 'everstep[dev]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_entry_point_is_a_function_however_often_it_is_imported(cli: Cli) -> None:
    cli("new", "--list")
    from everstep.cli import main

    assert main(["--version"]) == 0


def test_a_mistake_of_ours_is_one_line_too_and_debug_shows_where(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from everstep import Client

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("out of cheese")

    cli("start", cli.app, "echo", "--id", "e1")
    monkeypatch.setattr(Client, "open", fail)
    assert cli("ls", code=2).err == "everstep: RuntimeError: out of cheese; --debug shows where\n"
    with pytest.raises(RuntimeError):
        cli("ls", "--debug")
    with pytest.raises(CannotLoad):
        cli("check", "nowhere", "--debug")
