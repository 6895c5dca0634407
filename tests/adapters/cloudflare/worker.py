"""Runs a Worker in real workerd: puts its files together, starts the process on a free port, kills it.

A Worker is a folder with `entry.py`, as on Cloudflare; what it would vendor lies in `python_modules`. Sources are
byte-compiled once and kept, as Cloudflare keeps a snapshot of a started worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from everstep_cloudflare.vendor import vendor
from tests.components import requires_component
from tools.components import HOME, locked, miniflare, run, workerd

SITES = Path(__file__).parent / "sites"
COMPATIBILITY = "2026-11-01"
CLASSES = {"EVERSTEP_RUNS": "Run", "EVERSTEP_INDEX": "Index"}
TOKEN = "secret-of-the-tests"

_CONFIG = """
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .main),
    (name = "front", worker = .front),
    (name = "storage", disk = (writable = true)),
    (name = "internet", network = (allow = ["public", "private"])),%(services)s
  ],%(extensions)s
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "front")],
);

const front :Workerd.Worker = (
  compatibilityDate = "%(date)s",
  compatibilityFlags = ["service_binding_extra_handlers"],
  modules = [(name = "front.mjs", esModule = embed "%(sources)s/front.mjs")],
  bindings = [(name = "MAIN", service = "main")],
);

const main :Workerd.Worker = (
  compatibilityDate = "%(date)s",
  modules = [
    (name = "worker.mjs", esModule = embed "%(folder)s/worker.mjs"),
    (name = "shim.mjs", esModule = embed "%(sources)s/shim.mjs"),
    (name = "pyodide.asm.mjs", esModule = embed "%(built)s/pyodide.asm.mjs"),
    (name = "pyodide.asm.wasm", wasm = embed "%(built)s/pyodide.asm.wasm"),
    (name = "stdlib.zip", data = embed "%(built)s/stdlib.zip"),
    (name = "python.json", json = embed "%(built)s/python.json"),
    (name = "app.zip", data = embed "%(app)s"),
  ],
  bindings = [%(bindings)s],
  globalOutbound = "%(outbound)s",
  durableObjectNamespaces = [%(namespaces)s],
  durableObjectStorage = (localDisk = "storage"),
);
"""
_R2_SERVICES = """
    (name = "r2", worker = (
      compatibilityDate = "%(date)s",
      modules = [(name = "entry.js", esModule = embed "%(workers)s/shared/object-entry.worker.js")],
      bindings = [
        (name = "MINIFLARE_NAMESPACE", text = "%(bucket)s"),
        (name = "MINIFLARE_OBJECT",
          durableObjectNamespace = (className = "R2BucketObject", serviceName = "r2 objects")),
      ],
    )),
    (name = "r2 objects", worker = (
      compatibilityDate = "2023-07-24",
      compatibilityFlags = ["nodejs_compat", "experimental"],
      modules = [(name = "bucket.js", esModule = embed "%(workers)s/r2/bucket.worker.js")],
      durableObjectNamespaces = [(className = "R2BucketObject", uniqueKey = "R2BucketObject")],
      durableObjectStorage = (localDisk = "r2 disk"),
      bindings = [(name = "MINIFLARE_BLOBS", service = "r2 disk")],
    )),
    (name = "r2 disk", disk = (path = "%(disk)s", writable = true)),"""
_R2_EXTENSIONS = """
  extensions = [(modules = [
    (name = "miniflare:shared", esModule = embed "%(workers)s/shared/index.worker.js"),
    (name = "miniflare:zod", esModule = embed "%(workers)s/shared/zod.worker.js"),
  ])],"""


def installed() -> workerd.Workerd:
    """The runtime, or a skipped test."""
    found = workerd.find()
    requires_component("workerd", present=found is not None, hint=workerd.HINT)
    assert found is not None
    return found


def simulator() -> miniflare.Miniflare:
    """R2's simulator, or a skipped test."""
    found = miniflare.find()
    requires_component("miniflare", present=found is not None, hint=miniflare.HINT)
    assert found is not None
    return found


def sources(folder: Path, at: str = "", skip: Sequence[str] = ()) -> dict[str, bytes]:
    """The files of a folder, by the path they get."""
    found = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_file() and not {"__pycache__", *skip} & set(inner.parts) and path.suffix not in (".pyc", ".so"):
            found[f"{at}{inner.as_posix()}"] = path.read_bytes()
    return found


@cache
def vendored(*keep: str) -> dict[str, bytes]:
    """What `python_modules` holds: Everstep as it is vendored, and the packages a Worker needs beside it."""
    with TemporaryDirectory() as folder:
        vendor(Path(folder), (), keep=keep)
        own = sources(Path(folder), "python_modules/")
    return {**sources(installed().packages, "python_modules/", skip=("bin",)), **own}


def compiled(files: Mapping[str, bytes]) -> Path:
    """A zip of these files and their byte code, made once."""
    buffer = io.BytesIO()
    digest = hashlib.sha256()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), data)
            digest.update(f"{name}\0{len(data)}\0".encode() + data)
    place = HOME / "workers" / f"{installed().folder.name}-{digest.hexdigest()[:16]}.zip"
    if not place.exists():
        with locked("workers"):
            place.parent.mkdir(exist_ok=True)
            given, aside = place.with_suffix(".in"), place.with_suffix(".out")
            given.write_bytes(buffer.getvalue())
            run("node", installed().folder / "compile.mjs", given, aside, "cache", "/session/metadata")
            given.unlink()
            aside.rename(place)
    return place


def _die_with_us() -> None:
    """Linux: a test run that is killed leaves no workerd behind."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Worker:
    """One workerd process on one folder of storage.

    Args:
        folder: for the configuration, the storage and the log; a second Worker on it goes on with the same objects.
        files: what is deployed: entry.py and what it imports; by default with everything vendored.
        objects: bindings of Durable Objects, and their classes.
        variables: of the Worker's environment.
        outside: where whatever the Worker fetches is asked for, whatever its address; by default there.
        bucket: the name under which a bucket of R2 is bound; Cloudflare's simulator, with its files in `folder`.
    """

    def __init__(
        self,
        folder: Path,
        files: Mapping[str, bytes],
        *,
        objects: Mapping[str, str] = CLASSES,
        variables: Mapping[str, str] | None = None,
        bucket: str | None = None,
        outside: str | None = None,
        start: bool = True,
    ) -> None:
        self.folder = folder
        self.log = folder / "workerd.log"
        (folder / "storage").mkdir(parents=True, exist_ok=True)
        classes = "".join(f'export const {name} = durableObject("{name}");\n' for name in objects.values())
        (folder / "worker.mjs").write_text(
            'import { durableObject, workerEntrypoint } from "shim.mjs";\n'
            f'{classes}export default workerEntrypoint("Default");\n'
        )
        given = {"EVERSTEP_TOKEN": TOKEN, **(variables or {})}
        bindings = [f'(name = "{name}", durableObjectNamespace = "{cls}")' for name, cls in objects.items()]
        bindings += [f'(name = "{name}", text = {json.dumps(value)})' for name, value in given.items()]
        namespaces = [f'(className = "{one}", uniqueKey = "{one}", enableSql = true)' for one in objects.values()]
        names = {
            "date": COMPATIBILITY,
            "sources": workerd.SOURCES,
            "built": installed().built,
            "folder": folder,
            "app": compiled(files),
            "bindings": ", ".join(bindings),
            "services": "",
            "extensions": "",
            "outbound": "internet",
            "namespaces": ", ".join(namespaces),
        }
        if bucket is not None:
            disk = folder / "r2"
            disk.mkdir(exist_ok=True)
            given_r2 = {"date": COMPATIBILITY, "workers": simulator().workers, "bucket": bucket, "disk": disk}
            names |= {"services": _R2_SERVICES % given_r2, "extensions": _R2_EXTENSIONS % given_r2}
            names["bindings"] = f'{names["bindings"]}, (name = "{bucket}", r2Bucket = "r2")'
        if outside is not None:
            there = f'(name = "outside", external = (address = "{outside}", http = ())),'
            names |= {"services": f"{names['services']}\n    {there}", "outbound": "outside"}
        (folder / "config.capnp").write_text(self._config(names))
        self.process: subprocess.Popen[bytes] | None = None
        self.boot = 0.0
        if start:
            self.start()

    def _config(self, names: Mapping[str, object]) -> str:
        return _CONFIG % names

    _options: tuple[str, ...] = ()

    def start(self) -> Worker:
        """Start the process; the time until Python's first answer is in `boot`, in seconds."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        began = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    installed().binary, "serve", "--experimental", "--import-path=/", self.folder / "config.capnp",
                    f"--socket-addr=http=127.0.0.1:{self.port}", f"--directory-path=storage={self.folder / 'storage'}",
                    *self._options,
                ],
                stdout=log, stderr=log, preexec_fn=_die_with_us,
            )  # fmt: skip
        try:
            self._wait(began + 120)
        except BaseException:
            self.kill()
            raise
        self.boot = time.monotonic() - began
        return self

    def _wait(self, until: float) -> None:
        while True:
            with contextlib.suppress(OSError):
                if self.call("GET", "/openapi.json")[0] == 200:
                    return
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"workerd did not come up:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.02)

    def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Make a request; returns the status and the body, parsed where it is JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json", **(headers or {})}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, given, method=method)
        try:
            with urllib.request.urlopen(request, timeout=70) as reply:
                status, text = reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def get(self, path: str) -> Any:
        status, body = self.call("GET", path)
        assert status == 200, (status, body, self.log.read_text()[-3000:])
        return body

    def post(self, path: str, body: Any = None) -> Any:
        status, answer = self.call("POST", path, {} if body is None else body)
        assert status in (200, 201, 202), (status, answer, self.log.read_text()[-3000:])
        return answer

    def result(self, id: str, seconds: float = 60) -> Any:
        """The value of a run once it is settled."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            view = self.get(f"/promises/{id}?wait=10")
            if view["state"] != "pending":
                assert view["state"] == "resolved", view
                return view["value"]
        raise AssertionError(f"{id} is still pending: {view}\n{self.log.read_text()[-3000:]}")

    def memory(self) -> int:
        """MiB of the process."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) // 1024

    def kill(self) -> None:
        """SIGKILL: no clean-up of any kind runs."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class TrueWorker(Worker):
    """A Worker whose Python is loaded by Cloudflare's own loader, from a folder of its bundles."""

    def __init__(self, folder: Path, files: Mapping[str, bytes], *, objects: Mapping[str, str], bundles: Path) -> None:
        self._files = files
        self._options = (f"--pyodide-bundle-disk-cache-dir={bundles}",)
        super().__init__(folder, files, objects=objects)

    def _config(self, names: Mapping[str, object]) -> str:
        modules = []
        for name, data in sorted(self._files.items(), key=lambda one: one[0] != "entry.py"):
            path = self.folder / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            kind = "pythonModule" if name.endswith(".py") else "data"
            modules.append(f'(name = "{name}", {kind} = embed "{path}")')
        before, _, rest = (_CONFIG % names).partition("const main :Workerd.Worker = (")
        after = rest[rest.index("  bindings = [") :]
        flags = 'compatibilityFlags = ["python_workers"],'
        head = f'const main :Workerd.Worker = (\n  compatibilityDate = "{COMPATIBILITY}",\n  {flags}\n'
        return f"{before}{head}  modules = [{', '.join(modules)}],\n{after}"
