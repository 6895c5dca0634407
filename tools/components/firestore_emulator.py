"""Finds the official Firestore emulator, installs Google's Debian package where that is ours to do, and starts it.

The emulator is a jar of the Cloud SDK. It is run by `java` itself: the wrapper that comes with it leaves an orphan when
it is killed. Each start takes a free port and keeps everything in memory, so that nothing of one is seen by another.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tools.components import apt

HINT = (
    "run `gcloud components install cloud-firestore-emulator` (with Debian's gcloud: install "
    "google-cloud-cli-firestore-emulator from Google's archive), or set FIRESTORE_EMULATOR_JAR; it needs Java 11"
)
_MAIN = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"


class Emulator(NamedTuple):
    """What it takes to start one."""

    java: str
    jar: Path


def find() -> Emulator | None:
    """Return the first jar there is and a Java that runs, or None."""
    java = _java()
    jar = next((jar for jar in _jars() if jar.is_file()), None)
    return Emulator(java, jar) if java and jar else None


def ensure() -> Emulator | None:
    """Return the emulator, installed first if it is missing and installing is ours to do. Raises Missing."""
    found = find()
    if found is None:
        if _java() is None:
            apt("default-jre-headless")
        if not any(jar.is_file() for jar in _jars()):
            apt("google-cloud-cli-firestore-emulator")
        found = find()
    return found


@contextmanager
def running(heap: str = "512m") -> Iterator[str]:
    """Start an emulator, empty; yields its `host:port` and ends it afterwards.

    Raises:
        RuntimeError: there is none, or it did not come up within a minute.
    """
    found = find()
    if found is None:
        raise RuntimeError(f"no Firestore emulator: {HINT}")
    port = _free_port()
    java = [found.java, f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", str(found.jar), _MAIN]
    listen = ["--host=127.0.0.1", f"--port={port}"]
    process = subprocess.Popen([*java, *listen], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await(process, port)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wipe(host: str, project: str, database: str = "(default)") -> None:
    """Remove every document of a project."""
    url = f"http://{host}/emulator/v1/projects/{project}/databases/{database}/documents"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30).read()


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    give_up = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).read()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError("the Firestore emulator did not come up") from None
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=os.path.join(home, "bin")) if home else shutil.which("java")


def _jars() -> Iterator[Path]:
    if named := os.environ.get("FIRESTORE_EMULATOR_JAR"):
        yield Path(named)
    roots = [Path(root) for root in [os.environ.get("CLOUDSDK_ROOT_DIR")] if root]
    if gcloud := shutil.which("gcloud"):
        roots.append(Path(gcloud).resolve().parent.parent)
    roots.append(Path("/usr/lib/google-cloud-sdk"))
    for root in roots:
        yield from sorted((root / "platform" / "cloud-firestore-emulator").glob("*.jar"))
    yield from sorted((Path.home() / ".cache" / "firebase" / "emulators").glob("cloud-firestore-emulator-v*.jar"))[-1:]
