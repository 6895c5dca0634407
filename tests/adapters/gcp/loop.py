"""The real loop: functions-framework in processes of its own, the emulator, the queue on the machine's clock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.components.firestore_emulator import _free_port

from .dispatcher import Dispatcher
from .rig import ACCOUNT, QUEUE
from .tokens import Keys, Publisher

ROOT = Path(__file__).resolve().parents[3]
TARGET = Path(__file__).with_name("target")


class Server:
    """functions-framework in a session of its own, started again whenever it dies."""

    def __init__(self, environ: dict[str, str], port: int, output: Path, source: Path) -> None:
        self.starts = 0
        self._environ = environ
        self._port = port
        self._output = output
        self._source = source
        self._stopping = threading.Event()
        self._start()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _start(self) -> None:
        self.starts += 1
        command = [sys.executable, "-m", "functions_framework", "--target", "main", "--host", "127.0.0.1"]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, "--port", str(self._port), "--source", str(self._source / "main.py")],
                env=self._environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _watch(self) -> None:
        while not self._stopping.wait(0.05):
            if self._process.poll() is not None:
                self._start()

    def close(self) -> None:
        self._stopping.set()
        self._watcher.join()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait(10)


class Loop:
    """Everything, started together.

    Args:
        emulator: `host:port` of Firestore's.
        timeout: seconds an invocation may take; a run whose holder died waits about as long.
        die_at: after which calls the function is killed.
    """

    def __init__(
        self,
        emulator: str,
        project: str,
        folder: Path,
        *,
        steps: int | None = None,
        timeout: int = 2,
        die_at: tuple[int, ...] = (),
        duplicates: float = 0.1,
        source: Path = TARGET,
    ) -> None:
        self.folder = folder
        self.keys = Keys()
        self.publisher = Publisher(self.keys)
        self.dispatcher = Dispatcher(self.keys, concurrent=6, least=0.2, most=1.5, duplicates=duplicates)
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        folders = ["core", "adapters/gcp", "templates/chess"]
        environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in folders),
            "PYTHONUNBUFFERED": "1",
            "FIRESTORE_EMULATOR_HOST": emulator,
            "GOOGLE_CLOUD_PROJECT": project,
            "K_SERVICE": "tests",
            "EVERSTEP_STORE": f"firestore://{project}",
            "EVERSTEP_QUEUE": QUEUE,
            "EVERSTEP_URL": self.url,
            "EVERSTEP_ACCOUNT": ACCOUNT,
            "EVERSTEP_TIMEOUT": str(timeout),
            "EVERSTEP_TASKS_HOST": self.dispatcher.host,
            "EVERSTEP_CERTIFICATES": self.publisher.address,
            "EVERSTEP_TOKEN": "t0ken",
            "EVERSTEP_TEST_HOME": str(folder),
            "EVERSTEP_DIE_AT": ",".join(map(str, die_at)),
            "EVERSTEP_STEPS_PER_INVOCATION": str(steps or ""),
        }
        self.output = folder / "output"
        self.server = Server(environ, port, self.output, source)

    def call(self, method: str, path: str, body: Any = None, token: str = "t0ken") -> tuple[int, Any]:
        """A request from outside, made again while nobody answers; its status and what it says."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        give_up = time.monotonic() + 60
        while True:
            request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return answer.status, json.loads(answer.read())
            except urllib.error.HTTPError as error:
                return error.code, error.read()
            except (OSError, ValueError):
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.1)

    def start(self, workflow: str, id: str, *args: Any) -> None:
        status, said = self.call("POST", f"/workflows/{workflow}", {"id": id, "args": list(args)})
        while status >= 500:  # killed in between
            status, said = self.call("POST", f"/workflows/{workflow}", {"id": id, "args": list(args)})
        assert status == 202, said

    def until(self, what: Callable[[], Any], seconds: float = 150) -> Any:
        """Ask until the answer is true."""
        give_up = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < give_up, f"waited {seconds} s\n{self.tail()}"
            time.sleep(0.1)
        return found

    def result(self, id: str) -> Any:
        """Its result, once it is there."""

        def settled() -> Any:
            status, view = self.call("GET", f"/promises/{id}")
            return status == 200 and view["state"] != "pending" and view

        return self.until(settled)["value"]

    def log(self) -> list[dict[str, Any]]:
        """What the function logged, of what happened to runs."""
        found = []
        for line in self.output.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                try:
                    found.append(json.loads(line))
                except ValueError:
                    pass  # cut off by a kill
        return [entry["detail"] for entry in found if "everstep" in entry.get("detail", {})]

    def tail(self) -> str:
        return self.output.read_text(errors="replace")[-3000:] + f"\n{self.dispatcher.log[-20:]}"

    def close(self) -> None:
        self.server.close()
        self.dispatcher.close()
        self.publisher.close()
