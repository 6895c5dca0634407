"""Whether the process that holds a lease still lives, so that a killed one's runs go on at once.

Theory. Each process holds an operating system lock on a file of its own in `<database>.live/`; the lock dies with the
process, however it dies. A shared try-lock on the file answers. A token names its machine: of another machine nothing
can be known, so its processes count as alive and their leases run out instead. Answering "alive" wrongly costs a wait;
answering "dead" wrongly would let two holders meet at the fence, so every doubt is "alive".
"""

from __future__ import annotations

import contextlib
import os
import platform
import weakref
from types import ModuleType
from typing import Any

fcntl: ModuleType | Any
try:
    import fcntl
except ImportError:
    fcntl = None


class Liveness:
    """This process's sign of life beside a database.

    Args:
        path: the database file; the folder `<path>.live` is created beside it.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._folder = f"{os.path.abspath(os.fspath(path))}.live"
        self._host = platform.node().replace(":", "_") or "localhost"
        self._name = ""
        self._file = -1
        os.makedirs(self._folder, exist_ok=True)
        self.sweep()
        _living.add(self)

    @property
    def token(self) -> str:
        """Names this process for as long as it lives, and never another one; a forked child gets its own."""
        if self._file < 0:
            self._name, self._file = self._enter()
        return f"{self._host}:{self._name}"

    def alive(self, token: str) -> bool:
        """Whether the process of `token` lives. False only when that is certain."""
        host, _, name = token.rpartition(":")
        if host != self._host or not _is_name(name):
            return True
        if self._file >= 0 and name == self._name:
            return True
        return not self._bury(name)

    def sweep(self) -> None:
        """Remove the files of the dead."""
        for name in os.listdir(self._folder):
            if _is_name(name) and name != self._name:
                self._bury(name)

    def close(self) -> None:
        """Give up this process's token."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder, self._name))
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        # Whoever forgets to close has let go of its work: others need not wait for this process's end.
        with contextlib.suppress(Exception):
            self.close()

    def _enter(self) -> tuple[str, int]:
        """Create and lock a file; begin again if somebody buried it before it was locked."""
        while True:
            name = os.urandom(16).hex()
            path = os.path.join(self._folder, name)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            with contextlib.suppress(OSError):
                _lock(file, exclusive=True)
                if os.fstat(file).st_ino == os.stat(path).st_ino:
                    return name, file
            os.close(file)

    def _bury(self, name: str) -> bool:
        """True if nobody holds the file of that name; it is gone then."""
        path = os.path.join(self._folder, name)
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            _lock(file, exclusive=False)
            with contextlib.suppress(OSError):
                os.unlink(path)
            return True
        except OSError:
            return False
        finally:
            os.close(file)


def _is_name(name: str) -> bool:
    return len(name) == 32 and all(char in "0123456789abcdef" for char in name)


def _lock(file: int, exclusive: bool) -> None:
    """Lock without waiting, or raise OSError. Askers share the lock, so that two of them do not see each other."""
    if fcntl is not None:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    else:
        import msvcrt

        locking: Any = msvcrt
        locking.locking(file, locking.LK_NBLCK, 1)


_living: weakref.WeakSet[Liveness] = weakref.WeakSet()


def _forked() -> None:
    """A fork shares the lock, for it belongs to the open file: the child lets go, or its parent would never die."""
    for liveness in _living:
        if liveness._file >= 0:
            os.close(liveness._file)
            liveness._file = -1
            liveness._name = ""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
