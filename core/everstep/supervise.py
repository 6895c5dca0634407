"""Runs one program in a process group of its own, with limits, and takes it down when the parent is gone.

A program of its own, without imports of Everstep: a runner that is killed by SIGKILL cleans nothing up, but its end of
this one's stdin closes, whatever killed it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys

_CANNOT_START = 127


def main() -> int:
    order = json.loads(sys.argv[1])

    def limited() -> None:
        for name, size in order["limits"].items():
            kind = getattr(resource, f"RLIMIT_{name.upper()}")
            _, hard = resource.getrlimit(kind)
            most = size if hard == resource.RLIM_INFINITY else min(size, hard)
            resource.setrlimit(kind, (most, most))

    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # A Ctrl-C in the terminal goes to the whole group of processes; what becomes of the script is the runner's word.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = subprocess.Popen(order["command"], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=limited)
    except (OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"{order['command'][0]} cannot be run: {error}")
        return _CANNOT_START
    while child.poll() is None:
        ready, _, _ = select.select([0, woken], [], [])
        if 0 in ready and not os.read(0, 1):
            break
        if woken in ready:
            os.read(woken, 512)
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    code = child.wait()
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
