"""Scripts: what one gives, what stops it, what it sees; and that nothing of it is left."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from everstep import InvalidArgument
from everstep.scripts import Runner, ScriptFailed, Shell, script_of

pytestmark = pytest.mark.skipif(not Path("/bin/bash").exists(), reason="there is no /bin/bash")


def run(text: str, *args: str, **shell: Any) -> str:
    return asyncio.run(Runner(Shell(**shell)).run(text, args, id="job.1"))


def fails(text: str, **shell: Any) -> ScriptFailed:
    with pytest.raises(ScriptFailed) as caught:
        run(text, **shell)
    return caught.value


def test_its_output_without_the_last_newline() -> None:
    assert run("echo hi; echo; echo noise >&2") == "hi\n"
    assert run('printf "%s|" "$@"', "a b", "", "$x") == "a b||$x|"
    assert run("printf '\\xff'") == "\ufffd"
    assert run("cat") == "", "it has no input"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("echo out; echo 'no such disk' >&2; exit 3", 3, "no such disk"),
        ("exit 4", 4, "exit status 4"),
        ("kill -9 $$", 137, "ended by SIGKILL"),
        ("nosuchcommand", 127, "nosuchcommand"),
    ],
)
def test_another_status_is_what_it_said(text: str, code: int, message: str) -> None:
    failure = fails(text)

    assert failure.code == code
    assert message in str(failure)


def test_limits() -> None:
    assert fails("while :; do sleep 0.1; done", seconds=0.2).code == 124
    assert "more than 1000 bytes" in str(fails("yes", output=1000))
    assert len(str(fails("head -c 5000 /dev/zero | tr '\\0' x >&2; exit 1", output=1000))) == 1000
    assert fails("head -c 100000000 /dev/zero | tail; exit ${PIPESTATUS[1]}", memory=50_000_000).code != 0
    assert fails("head -c 100000 /dev/zero > file || exit 9", file_size=1000).code == 9


def test_one_that_writes_without_end_is_stopped_each_time() -> None:
    """A full pipe that nobody reads any more must not be waited for."""
    for _ in range(10):
        assert "more than 1 bytes" in str(fails("while :; do echo xxxxxxxxxxxxxxxx; done & yes; wait", output=1))


def test_its_environment_is_stable_and_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    text = "env | grep -v '^_=\\|^SHLVL=\\|^OLDPWD=' | sed s/everstep-........$/F/ | sort"
    one = run(text, env={"LEVEL": "3"})

    assert one == run(text, env={"LEVEL": "3"})
    assert "EVERSTEP_ID=job.1" in one.splitlines()
    assert "LEVEL=3" in one.splitlines()
    assert "A_SECRET" not in one
    assert {line.partition("=")[0] for line in one.splitlines()} == {
        *("EVERSTEP_ID", "HOME", "LANG", "LEVEL", "PATH", "PWD", "TMPDIR", "TZ")
    }


def test_it_runs_in_a_folder_of_its_own_that_is_gone_afterwards() -> None:
    folder = run("touch mine; ls; pwd").splitlines()

    assert folder[:2] == ["mine", "script"]
    assert not Path(folder[2]).exists()


def test_what_it_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    text = f"(while :; do date +%N > {tmp_path}/beat; sleep 0.01; done) & sleep 0.1; echo done"

    assert run(text) == "done"
    before = (tmp_path / "beat").read_text()
    assert run("sleep 0.1") == ""
    assert (tmp_path / "beat").read_text() == before


def test_another_program_runs_it() -> None:
    assert run("print(1 + 1)", command=(sys.executable, "{file}")) == "2"
    assert run("x", command=("/bin/echo", "{folder}/a")).endswith("/a")
    assert "cannot be run" in str(fails("x", command=("/no/such/program",)))


@pytest.mark.parametrize(
    ("param", "script"),
    [
        ("echo hi", ("echo hi", [])),
        (["script", ["echo $1", "a"]], ("echo $1", ["a"])),
        (["script", ["echo"], {}], ("echo", [])),
        ({"func": "script", "args": ["echo", "b"]}, ("echo", ["b"])),
    ],
)
def test_the_forms_of_a_script(param: Any, script: Any) -> None:
    assert script_of(param) == script


@pytest.mark.parametrize("param", [None, 3, [], ["script", []], ["script", [3]], ["script", ["x", 3]], {"args": []}])
def test_what_is_no_script(param: Any) -> None:
    with pytest.raises(InvalidArgument):
        script_of(param)
