"""Payloads too large for a record, kept beside the store. A blob is written before the record that refers to it.

A crash in between leaves a blob that nothing refers to, which costs space and nothing else; the other order would
leave a record that cannot be read.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Protocol

__all__ = ["Blobs", "DirectoryBlobs", "MemoryBlobs"]


class Blobs(Protocol):
    """Bytes by key. Keys hold ids, so any text but NUL; a key is only ever written with the same bytes."""

    async def put(self, key: str, data: bytes) -> None:
        """Write; durable when it returns."""
        ...

    async def get(self, key: str) -> bytes:
        """Read; raises KeyError where there is none, and anything else where the platform is in trouble."""
        ...

    async def delete(self, key: str) -> None:
        """Remove; not an error where there is none."""
        ...


class MemoryBlobs:
    """In this process alone."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    async def put(self, key: str, data: bytes) -> None:
        self.held[key] = bytes(data)

    async def get(self, key: str) -> bytes:
        return self.held[key]

    async def delete(self, key: str) -> None:
        self.held.pop(key, None)


class DirectoryBlobs:
    """One file for each blob, in a folder that several processes may share.

    A file appears whole or not at all: it is written aside, flushed to the disk and renamed. Its name is a readable
    beginning and a hash of the key, so that no key (`../x`, `CON`, `a/b` and `a_b`, 1,000 bytes) can leave the folder
    or meet another's file.

    Args:
        folder: created on the first write.

    Methods raise OSError where the disk does.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """Where a key is kept."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        readable = re.sub(r"[^A-Za-z0-9-]+", "_", key, flags=re.ASCII)[:40].strip("_")
        return self.folder / digest[:2] / f"{readable or 'blob'}.{digest[:40]}"

    async def put(self, key: str, data: bytes) -> None:
        """Write; an existing blob is replaced."""
        _write(self.path(key), data)

    async def get(self, key: str) -> bytes:
        """Raises KeyError: there is no such blob."""
        try:
            return self.path(key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None

    async def delete(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unique across machines that share the folder, where process ids are not.
    aside = path.with_name(f".{path.name}.{os.urandom(8).hex()}")  # noqa: TID251
    try:
        with open(aside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system can (Windows opens no folders)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
