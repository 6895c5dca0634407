"""Commands that look at a store and act on promises: what they print for people and for machines, and their codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everstep.cli.words import clean, span
from tests.components import requires_component
from tests.core.cli_support import Cli, make_cli


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return make_cli(tmp_path, monkeypatch, capsys)


@pytest.fixture
def waiting(cli: Cli) -> Cli:
    """One finished countdown, one order that waits for o1.2."""
    cli("run", cli.app, "countdown", "1", "--id", "c1")
    cli("run", cli.app, "order", "o-1", "--id", "o1", "--timeout", "0.2", "--tag", "team=ops", code=3)
    return cli


def test_start_prints_the_id_and_runs_nothing(cli: Cli) -> None:
    assert cli("start", cli.app, "countdown", "1", "--id", "c1").out == "c1\n"
    assert cli("start", cli.app, "countdown", "1", "--id", "c1", "--json").json == {"id": "c1"}
    assert cli.notes() == []
    assert cli("get", "c1", code=3).out.splitlines()[1].split() == ["state", "…", "queued"]


def test_get_answers_with_the_state_as_its_code(waiting: Cli) -> None:
    assert waiting("get", "c1").out.splitlines()[1].split() == ["state", "✓", "done"]
    assert waiting("get", "c1", "--json").json["value"] == "liftoff"
    assert waiting("get", "o1", code=3).out.splitlines()[1].split() == ["state", "◌", "waiting"]
    assert waiting("get", "o1", "--wait", "0.05", code=3).err == ""
    waiting("cancel", "o1")
    assert waiting("get", "o1", "--json", code=1).json["state"] == "rejected_canceled"


@pytest.mark.parametrize(
    ("command", "state", "value", "error"),
    [
        (("resolve", "o1.2", '{"ok": [1]}'), "resolved", {"ok": [1]}, None),
        (("resolve", "o1.2", "plain text"), "resolved", "plain text", None),
        (("resolve", "o1.2", "-1"), "resolved", -1, None),
        (("resolve", "o1.2"), "resolved", None, None),
        (("reject", "o1.2", "no stock"), "rejected", None, "no stock"),
        (("reject", "o1.2"), "rejected", None, "rejected by hand"),
        (("cancel", "o1.2"), "rejected_canceled", None, "o1.2 was cancelled"),
    ],
)
def test_settling(waiting: Cli, command: tuple[str, ...], state: str, value: object, error: str | None) -> None:
    view = waiting(*command, "--json").json

    assert (view["state"], view["value"]) == (state, value)
    assert (view["error"] or {}).get("message") == error
    assert waiting(*command, "--json").json == view
    other = "reject" if state == "resolved" else "resolve"
    assert "settled before" in waiting(other, "o1.2", "x", code=2).err


def test_reject_with_a_type(waiting: Cli) -> None:
    assert waiting("reject", "o1.2", "none", "--type", "OutOfStock", "--json").json["error"]["type"] == "OutOfStock"


def test_tree_draws_states_names_arguments_and_times(waiting: Cli) -> None:
    lines = waiting("tree", "o1").out.splitlines()

    assert lines[0].startswith('◌ waiting o1 order("o-1")  for ')
    assert lines[1].startswith('├── ✓ done o1.1 note("o-1")  ')
    assert lines[1].endswith('→ "O-1"')
    assert lines[2].startswith("└── ? open o1.2 promise  for ")
    tree = waiting("tree", "o1", "--json").json
    assert [child["id"] for child in tree["children"]] == ["o1.1", "o1.2"]


def test_tree_counts_the_attempt_that_was_the_last_too(cli: Cli) -> None:
    Path("counted.py").write_text(
        "from everstep import App, Retry\napp = App('counted')\n"
        "@app.step(retry=Retry(attempts=2, first=0.001))\ndef fails():\n    raise KeyError('x')\n"
        "@app.workflow\nasync def flow(ctx):\n    await ctx.run(fails)\n"
    )
    cli("run", "counted", "flow", "--id", "f1", code=1)
    assert "2 failed attempts" in cli("tree", "f1").out


def test_ls_filters_and_pages(waiting: Cli) -> None:
    table = waiting("ls").out
    assert "c1" in table
    assert "o1" in table

    def ids(*options: str) -> list[str]:
        return [one["id"] for one in waiting("ls", "--json", *options).json["promises"]]

    assert ids() == ["c1", "o1"]
    assert ids("--state", "pending") == ["o1"]
    assert ids("--state", "halted") == []
    assert ids("--tag", "team=ops") == ["o1"]
    assert ids("--prefix", "c") == ["c1"]
    assert set(ids("--all")) >= {"c1", "c1.1", "o1", "o1.1", "o1.2"}
    first = waiting("ls", "--json", "--limit", "1").json
    assert [one["id"] for one in first["promises"]] == ["c1"]
    assert ids("--limit", "1", "--cursor", first["cursor"]) == ["o1"]
    assert "--cursor" in waiting("ls", "--limit", "1").err
    assert waiting("ls", "--prefix", "zz").err == "no run fits\n"


def test_verify_sweep_and_cost(waiting: Cli) -> None:
    assert "all will move" in waiting("verify").err
    assert waiting("verify", "--json").json["problems"] == []
    assert waiting("verify", "--repair", "--json").json["problems"] == []
    assert waiting("sweep", "--json").json == {"fired": 0, "purged": 0}
    assert waiting("sweep").out == "0 overdue wake-ups sent, 0 expired runs removed\n"
    report = waiting("cost", "c1", "--json").json
    assert set(report["dollars"]) == {"aws", "gcp", "supabase", "cloudflare"}
    table = waiting("cost", "c1").out
    assert "store requests: write" in table
    assert f"{report['dollars']['aws'] * 1e6:,.2f}" in table


def test_verify_finds_what_would_never_move_and_repairs_it(waiting: Cli) -> None:
    import sqlite3

    with sqlite3.connect("everstep.db") as file:
        (table,) = (
            name
            for (name,) in file.execute("select name from sqlite_master where type = 'table'")
            if "due" in {row[1] for row in file.execute(f"pragma table_info({name})")}
        )
        waiting("start", waiting.app, "countdown", "1", "--id", "c2")
        assert file.execute(f"update {table} set due = null where id = 'c2'").rowcount == 1
    file.close()

    found = waiting("verify", code=1)
    assert found.out.startswith("c2: ")
    assert "--repair" in found.err
    assert waiting("verify", "--repair", "--json").json["problems"][0]["repaired"] is True
    waiting("verify")


def test_schedules(cli: Cli) -> None:
    requires_component("cronsim", hint="pip install -e '.[test]'")
    add = ("schedule", "add", "nightly", "0 3 * * *", cli.app, "countdown", "3", "--timezone", "Europe/Berlin")

    assert cli(*add).out.startswith("nightly: next run ")
    assert cli(*add).out.startswith("nightly already exists: next run ")
    assert cli(*add, "--json").json["timezone"] == "Europe/Berlin"
    line = cli("schedule", "list").out.splitlines()[1]
    assert line.split()[:2] == ["nightly", "countdown"], "and what it starts"
    assert [one["id"] for one in cli("schedule", "list", "--json").json["schedules"]] == ["nightly"]
    assert "differs" in cli("schedule", "add", "nightly", "0 4 * * *", cli.app, "countdown", "3", code=2).err
    assert "61 * * * *" in cli("schedule", "add", "x", "61 * * * *", cli.app, "countdown", "3", code=2).err
    assert "'nope'" in cli("schedule", "add", "x", "* * * * *", cli.app, "nope", code=2).err
    cli("schedule", "rm", "nightly")
    assert cli("schedule", "list").err == "no schedules yet\n"
    assert "nightly" in cli("schedule", "rm", "nightly", code=2).err


@pytest.mark.parametrize(
    "command",
    [
        ("get", "nope"),
        ("tree", "nope"),
        ("cost", "nope"),
        ("resolve", "nope", "1"),
        ("reject", "nope"),
        ("cancel", "nope"),
        ("halt", "nope"),
        ("continue", "nope"),
    ],
)
def test_an_unknown_id_is_named(waiting: Cli, command: tuple[str, ...]) -> None:
    assert "'nope'" in waiting(*command, code=2).err
    answer = json.loads(waiting(*command, "--json", code=2).err)
    assert answer["error"] == "NotFound"


def test_looking_makes_no_store(cli: Cli) -> None:
    assert "there is no store at everstep.db" in cli("ls", code=2).err
    assert "there is no store at x.db" in cli("tree", "a", "--store", "sqlite:///x.db", code=2).err
    assert list(cli.folder.glob("*.db")) == []


def test_the_store_comes_from_the_option_or_the_environment(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("start", cli.app, "countdown", "1", "--id", "a", "--store", "sqlite:///one.db")
    monkeypatch.setenv("EVERSTEP_STORE", "sqlite:///one.db")
    assert cli("ls", "--json").json["promises"][0]["id"] == "a"


def test_a_corrupted_store_is_named_without_a_traceback(cli: Cli) -> None:
    Path("bad.db").write_bytes(b"this is no database" * 500)
    done = cli("ls", "--store", "sqlite:///bad.db", code=2)

    assert "bad.db" in done.err
    assert done.err.count("\n") == 1


def test_hostile_text_does_not_reach_the_terminal_as_commands(cli: Cli) -> None:
    evil = "\x1b[2J[red]x[/]\u202e"
    cli("start", cli.app, "echo", evil, "--id", evil)
    for command in (("ls",), ("tree", evil), ("get", evil)):
        out = cli(*command, code=None).out
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "\\x1b[2J[red]x[/]" in out


def test_words() -> None:
    assert [span(ms) for ms in (-1, 0, 999, 1000, 9_999, 59_999, 60_000, 3_661_000, 90_000_000)] == [
        "0 ms", "0 ms", "999 ms", "1.0 s", "10.0 s", "59 s", "1 min", "1 h 1 min", "1 d 1 h",
    ]  # fmt: skip
    assert clean("a\nb\x07") == "a\\nb\\x07"
    assert clean("ünï 코드") == "ünï 코드"
