"""`everstep run`: to the end, in this process; after any death the same command goes on."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path

import pytest

from tests.core.cli_support import Cli, make_cli


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return make_cli(tmp_path, monkeypatch, capsys)


def test_the_result_is_json_on_stdout_and_the_rest_is_told_on_stderr(cli: Cli) -> None:
    done = cli("run", cli.app, "countdown", "2", "--id", "c1")

    assert done.out.splitlines()[-1] == '"liftoff"'
    assert "c1 starts" in done.err
    assert "c1.1 note" in done.err
    assert cli.notes() == ["2", "1"]


def test_with_json_stdout_holds_nothing_else(cli: Cli) -> None:
    done = cli("run", cli.app, "countdown", "1", "--id", "c1", "--json")

    assert (done.json["id"], done.json["state"], done.json["value"]) == ("c1", "resolved", "liftoff")
    assert "step says 1" in done.err


def test_the_same_command_again_runs_nothing_again(cli: Cli) -> None:
    cli("run", cli.app, "countdown", "2", "--id", "c1")
    again = cli("run", cli.app, "countdown", "2", "--id", "c1")

    assert again.out == '"liftoff"\n'
    assert "nothing ran" in again.err
    assert cli.notes() == ["2", "1"]


def test_killed_at_any_point_and_started_again_each_recorded_notification_is_there_once(cli: Cli) -> None:
    command = ("run", cli.app, "countdown", "5", "0.2", "--id", "c1")
    seen: list[str] = []
    for kills in range(3):
        process = cli.process(*command)
        assert process.stderr is not None
        for line in process.stderr:
            seen.append(line)
            if line.startswith("✓") and sum(one.startswith("✓") for one in seen) > kills:
                break
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    done = cli.process(*command)
    out, err = done.communicate(timeout=60)

    assert (done.returncode, out.splitlines()[-1]) == (0, '"liftoff"')
    assert "c1 resumes" in err
    assert "replayed" in err
    assert cli.notes() == ["5", "4", "3", "2", "1"]


def test_ctrl_c_says_that_the_run_is_kept_and_how_to_go_on(cli: Cli) -> None:
    process = cli.process("run", cli.app, "order", "o 1", "--id", "o1", "--store", "sqlite:///x.db")
    assert process.stderr is not None
    for line in process.stderr:
        if "everstep resolve o1.2" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    assert process.returncode == 3
    assert f"everstep run {cli.app} order 'o 1' --store sqlite:///x.db --id o1" in err
    assert "Traceback" not in err


def test_a_run_that_waits_for_a_person_goes_on_when_settled(cli: Cli) -> None:
    waiting = cli("run", cli.app, "order", "o-1", "--id", "o1", "--timeout", "0.3", code=3)
    assert "everstep resolve o1.2" in waiting.err
    assert "still pending" in waiting.err
    assert waiting.out == "step says o-1\n"
    cli("resolve", "o1.2", "true")

    done = cli("run", cli.app, "order", "o-1", "--id", "o1")
    assert done.out == '"shipped"\n'
    assert "1 recorded result replayed, none of it ran again" in done.err
    assert cli.notes() == ["o-1"]


def test_a_failed_workflow_is_exit_code_1_with_its_error(cli: Cli) -> None:
    done = cli("run", cli.app, "broken", "--id", "b1", code=1)

    assert (done.out, "ValueError: no luck" in done.err) == ("", True)
    assert cli("run", cli.app, "broken", "--id", "b1", "--json", code=1).json["error"]["type"] == "ValueError"


def test_a_retry_is_told(cli: Cli) -> None:
    done = cli("run", cli.app, "unlucky", "--id", "u1")

    assert "attempt 1 failed: ConnectionError" in done.err.replace("'", "")
    assert "attempt 3" in done.err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ('"5"', "5"),
        ("five", "five"),
        ("[1, {}]", [1, {}]),
        ("{bad", "{bad"),
        ("NaN", "NaN"),
        ("--x", "--x"),
        ("-x", "-x"),
        ("", ""),
    ],
)
def test_an_argument_is_json_where_it_parses_else_a_string(cli: Cli, text: str, value: object) -> None:
    done = cli("run", cli.app, "echo", "--id", "e1", "-k", f"k={text}", "--", text)

    assert json.loads(done.out) == [[value], {"k": value}]


def test_a_negative_number_needs_no_dashes(cli: Cli) -> None:
    assert json.loads(cli("run", cli.app, "echo", "-5", "--id", "e1").out) == [[-5], {}]


@pytest.mark.parametrize("command", ["run", "start"])
def test_a_mistyped_option_is_named_and_is_no_argument(cli: Cli, command: str) -> None:
    for place in (0, 1, 2, 3):
        arguments = [cli.app, "echo", "1"]
        arguments.insert(place, "--keywrod=1")
        done = cli(command, *arguments, code=2)
        assert "'--keywrod'" in done.err
        assert "--keyword" in done.err.replace("--keywrod", ""), "what was meant"
    assert "'-q'" in cli(command, cli.app, "echo", "-q", code=2).err
    assert not Path("everstep.db").exists()


def test_the_command_that_resumes_can_be_given_as_it_is_told(cli: Cli) -> None:
    told = cli("run", cli.app, "echo", "-1", "--", "--x").err.splitlines()[0].partition("to resume it: everstep ")[2]

    assert json.loads(cli(*shlex.split(told)).out) == [[-1, "--x"], {}]


def test_without_an_id_one_is_made_up_and_told(cli: Cli) -> None:
    done = cli("run", cli.app, "echo", "1")

    assert f"everstep run {cli.app} echo 1 --id echo-" in done.err


def test_each_step_may_be_an_invocation_of_its_own(cli: Cli) -> None:
    done = cli("run", cli.app, "countdown", "3", "--id", "c1", "--each-step")

    assert done.out.splitlines()[-1] == '"liftoff"'
    assert cli.notes() == ["3", "2", "1"]
    assert cli("get", "c1", "--json").json["version"] >= 3


def test_tags_are_kept(cli: Cli) -> None:
    cli("run", cli.app, "echo", "--id", "e1", "--tag", "team=ops")

    assert cli("get", "e1", "--json").json["tags"]["team"] == "ops"


def test_quiet_tells_nothing(cli: Cli) -> None:
    assert cli("run", cli.app, "echo", "--id", "e1", "--quiet").err == ""


def test_a_halted_run_is_pending_and_says_how_to_go_on(cli: Cli) -> None:
    cli("start", cli.app, "countdown", "1", "--id", "c1")
    cli("halt", "c1", "for a look.")
    halted = cli("run", cli.app, "countdown", "1", "--id", "c1", code=3)
    assert "halted: for a look; everstep continue c1" in halted.err

    cli("continue", "c1")
    assert cli("run", cli.app, "countdown", "1", "--id", "c1").out.endswith('"liftoff"\n')


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nope",), "no workflow named 'nope'"),
        (("countdown",), "missing the argument 'n'"),
        (("countdown", "many"), "argument 'n'"),
        (("countdown", "1", "2", "3"), "countdown()"),
        (("countdown", "1", "-k", "m=2"), "'m'"),
        (("countdown", "1", "-k", "m"), "is not name=value"),
        (("countdown", "1", "--id", "a.b"), "has a dot"),
        (("countdown", "1", "--timeout", "-1"), "--timeout"),
        (("countdown", "1", "--store", "nonsense"), "not a store URL"),
        (("countdown", "1", "--store", "sqlite:////no/such/folder/x.db"), "/no/such/folder"),
    ],
)
def test_what_cannot_be_run_is_one_red_line_naming_the_culprit(
    cli: Cli, arguments: tuple[str, ...], words: str
) -> None:
    done = cli("run", cli.app, *arguments, code=2)

    assert words in done.err
    assert done.err.count("\n") == 1
    assert done.err.startswith("everstep: ")
    assert cli.notes() == []


def test_other_work_under_the_same_id_is_refused_unless_one_attaches(cli: Cli) -> None:
    cli("run", cli.app, "countdown", "1", "--id", "c1")

    refused = cli("run", cli.app, "countdown", "2", "--id", "c1", code=2).err
    assert "other work" in refused
    assert "or give --attach" in refused
    assert cli("run", cli.app, "countdown", "2", "--id", "c1", "--attach").out == '"liftoff"\n'


def test_a_failure_names_the_line_it_comes_from(cli: Cli) -> None:
    Path("mine.py").write_text(
        "from everstep import App, Retry\napp = App('mine')\n\n"
        "@app.step(retry=Retry(attempts=2, first=0.001))\ndef step():\n    raise KeyError('inner')\n\n"
        "@app.workflow\nasync def outer(ctx):\n    await ctx.run(step)\n"
    )
    done = cli("run", "mine:app", "outer", "--id", "m1", code=1)

    assert "attempt 1 failed: KeyError: 'inner' (mine.py:6)" in done.err
    assert "failed: KeyError: 'inner' (mine.py:10)" in done.err.splitlines()[-1]
