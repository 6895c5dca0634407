"""What really goes over the wire: a proxy before Postgres that counts the times a client waits for an answer.

Each `Sync` or simple `Query` of the frontend/backend protocol is one: the server answers all that came before it, and
the client reads on until `ReadyForQuery`.
"""

from __future__ import annotations

import socket
import struct
import threading
from urllib.parse import urlsplit, urlunsplit

_STARTUP = 196608
_WAITS = (b"S"[0], b"Q"[0])


class Wire:
    """A port that leads to the server of `dsn`; a context manager. `trips` counts what all its connections asked."""

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        assert parts.hostname is not None
        assert parts.port is not None
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        user = parts.netloc.rpartition("@")[0]
        self.dsn = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self.port}"))
        self.trips = 0
        self._open: list[socket.socket] = []

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in [self._listener, *self._open]:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
            except OSError:
                return
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [client, server]
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counting: bool) -> None:
        rest, started = b"", False
        try:
            while data := source.recv(1 << 16):
                if counting:
                    # Before it goes on: whoever has the answer has been counted.
                    rest, started = self._count(rest + data, started)
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _count(self, data: bytes, started: bool) -> tuple[bytes, bool]:
        """Read whole messages; what is left of the last one."""
        at = 0
        while True:
            kind = 1 if started else 0  # only what follows the startup message has a type
            if len(data) < at + kind + 4:
                return data[at:], started
            (length,) = struct.unpack_from("!i", data, at + kind)
            if len(data) < at + kind + length:
                return data[at:], started
            if started:
                self.trips += data[at] in _WAITS
            else:
                started = struct.unpack_from("!i", data, at + 4)[0] == _STARTUP
            at += kind + length
