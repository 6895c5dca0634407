"""Scripts as durable tasks: a promise addressed to `bash://group` is run by any runner of that group.

Exit status 0 resolves it with what the script wrote to stdout, any other rejects it with what it wrote to stderr. A
script starts over when its runner dies, in an empty folder and with the same environment: `EVERSTEP_ID` is its
promise's id, by which what it does outside can be made idempotent. Its processes die with the runner, however that
dies, so that no two runs of one script overlap on one machine.

Limits keep an honest script in bounds. They are no wall against a hostile one: give `command` a container for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidArgument
from .pull import Puller, Taken

if TYPE_CHECKING:
    from .client import Client

__all__ = ["Runner", "ScriptFailed", "Shell", "runner"]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GRACE = 10.0
"""Seconds for a supervisor to end; a process that slipped away from it and holds a pipe open is not waited for."""
_SUPERVISOR = str(Path(__file__).with_name("supervise.py"))


class ScriptFailed(Exception):
    """A script ended with another status than 0, or was stopped; the message is what it wrote to stderr.

    Attributes:
        code: the exit status; 128 and the signal's number, where one ended it.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Shell:
    """How scripts run.

    Attributes:
        command: the program and its arguments; `{file}` is the script's file, `{folder}` the folder it runs in. For a
            container: `("docker", "run", "--rm", "--network", "none", "-v", "{folder}:{folder}", "-w", "{folder}",
            "bash", "bash", "{file}")`.
        seconds: how long one may take.
        cpu_seconds: of processor time; None for no limit.
        memory: bytes of address space of each process; None for no limit.
        file_size: bytes of the largest file it may write; None for no limit.
        output: bytes it may write to stdout; as much of stderr is kept, from its end.
        env: added to the environment, which is otherwise PATH, HOME, TMPDIR, LANG, TZ and EVERSTEP_ID.
    """

    command: Sequence[str] = ("/bin/bash", "{file}")
    seconds: float = 3600.0
    cpu_seconds: int | None = None
    memory: int | None = None
    file_size: int | None = None
    output: int = 100_000
    env: Mapping[str, str] = field(default_factory=dict)


class Runner:
    """Runs one script at a time, as often as it is asked to."""

    def __init__(self, shell: Shell | None = None) -> None:
        self.shell = shell if shell is not None else Shell()

    async def __call__(self, taken: Taken) -> str:
        """The work of a `Puller`. Raises ScriptFailed, InvalidArgument."""
        text, args = script_of(taken.param)
        return await self.run(text, args, id=taken.id)

    async def run(self, text: str, args: Sequence[str] = (), *, id: str) -> str:
        """Run a script to its end and return what it wrote to stdout, without the last newline.

        Raises:
            ScriptFailed: it ended with another status than 0, took too long, or wrote too much.
        """
        folder = tempfile.mkdtemp(prefix="everstep-")
        try:
            return await self._run(text, args, id, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _run(self, text: str, args: Sequence[str], id: str, folder: str) -> str:
        shell = self.shell
        file = os.path.join(folder, "script")
        Path(file).write_text(text, encoding="utf-8", errors="surrogatepass", newline="")  # noqa: ASYNC240
        words = [word.replace("{file}", file).replace("{folder}", folder) for word in shell.command]
        limits = {"cpu": shell.cpu_seconds, "as": shell.memory, "fsize": shell.file_size, "core": 0}
        order = {
            "command": [*words, *args],
            "limits": {name: size for name, size in limits.items() if size is not None},
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", _SUPERVISOR, json.dumps(order)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder,
            env={"PATH": PATH, "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "TZ": "UTC", **shell.env,
                 "EVERSTEP_ID": id},
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        head = asyncio.ensure_future(_head(process.stdout, shell.output))
        tail = asyncio.ensure_future(_tail(process.stderr, shell.output))
        try:
            async with asyncio.timeout(shell.seconds):
                out, err = await asyncio.gather(head, tail)
                code = await process.wait()
        except TimeoutError:
            raise ScriptFailed(f"stopped after {shell.seconds:g} seconds", 124) from None
        finally:
            head.cancel()
            tail.cancel()
            await asyncio.gather(head, tail, return_exceptions=True)
            process.stdin.close()  # the supervisor kills what is left, and ends
            await _ended_for_good(process)
        if code != 0:
            raise ScriptFailed(err.decode(errors="replace").strip() or _ended(code), code)
        return out.decode(errors="replace").removesuffix("\n")


async def _ended_for_good(process: asyncio.subprocess.Process) -> None:
    """Wait for a process that has been told to end. What it wrote is read and thrown away: asyncio takes a process for
    ended when its pipes are, and a pipe that nobody reads stays paused for ever."""
    assert process.stdout is not None
    assert process.stderr is not None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            await asyncio.gather(_tail(process.stdout, 1), _tail(process.stderr, 1), process.wait())


def _ended(code: int) -> str:
    if code > 128:
        try:
            return f"ended by {signal.Signals(code - 128).name}"
        except ValueError:
            pass
    return f"exit status {code}"


async def _head(stream: asyncio.StreamReader, most: int) -> bytes:
    kept = bytearray()
    while chunk := await stream.read(65536):
        kept += chunk
        if len(kept) > most:
            raise ScriptFailed(f"it wrote more than {most} bytes; let it write less, or to a file", 1)
    return bytes(kept)


async def _tail(stream: asyncio.StreamReader, most: int) -> bytes:
    kept = bytearray()
    while chunk := await stream.read(65536):
        kept += chunk
        del kept[:-most]
    return bytes(kept)


def script_of(param: Any) -> tuple[str, list[str]]:
    """The script of a promise's parameter and its arguments: its text alone, or a call of `script(text, *args)`.

    Raises:
        InvalidArgument: it is neither.
    """
    match param:
        case str():
            return param, []
        case [_, [str() as text, *args], *_] | {"args": [str() as text, *args]} if all(
            isinstance(one, str) for one in args
        ):
            return text, args
    raise InvalidArgument("a script is a text, or the call script(text, *arguments) with texts alone")


def runner(
    client: Client,
    *groups: str,
    shell: Shell | None = None,
    pid: str | None = None,
    concurrency: int = 4,
    lease: int = 15_000,
) -> Puller:
    """A worker that runs the scripts addressed to `bash://` or to `bash://<group>`; `serve` it.

    Args:
        groups: what this machine offers, such as `gpu` or `docker/alpine`; "" by default.
        pid: names it on leases; made up by default.
        concurrency: how many scripts at a time.
        lease: milliseconds until another runner takes over from one that died.
    """
    from .edge import new_id

    targets = [f"bash://{group}" for group in groups or ("",)]
    return Puller(client, targets, Runner(shell), pid=pid or new_id("runner"), concurrency=concurrency, lease=lease)
