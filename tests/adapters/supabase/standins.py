"""The workers behind standins.sql, and PostgREST's RPC: pg_cron, pg_net and PostgREST are in no package registry.

pg_cron runs one instance of a job at a time, in its own transaction. pg_net posts after the commit, once, in no order;
its queue row is gone whatever the answer was. PostgREST runs each request in one transaction as the role of its token,
with named arguments, and answers a function that returns text with a JSON string.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
from psycopg import sql

SECRET = "a secret of 32 characters, no less"


class Background:
    """pg_cron and pg_net of one database; a context manager.

    Args:
        second: real seconds to a second of pg_cron, so that tests need not wait for them.
    """

    def __init__(self, dsn: str, second: float = 1.0) -> None:
        self._dsn, self._second = dsn, second
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep, args=(work,), daemon=True) for work in (self._cron, self._net)
        ]
        self._posts = ThreadPoolExecutor(16, "net")
        self.posted = 0

    def __enter__(self) -> Background:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._posts.shutdown(cancel_futures=True)

    def _keep(self, work: Callable[[], None]) -> None:
        """Come back after the server has crashed and restarted, as the real workers do."""
        while not self._stop.is_set():
            try:
                work()
            except psycopg.Error:
                self._stop.wait(0.1)

    def _cron(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as db:
            while not self._stop.wait(self._second):
                jobs = db.execute("select schedule, command from cron.job where active").fetchall()
                for schedule, command in jobs:
                    if re.match(r"\s*\d+\s+second", schedule, re.I):
                        with contextlib.suppress(psycopg.errors.DataError):
                            db.execute(command.encode())

    def _net(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True, application_name="pg_net") as db:
            db.execute("listen pg_net")
            while not self._stop.is_set():
                rows = db.execute(
                    "delete from net.http_request_queue returning id, method, url, headers, body, timeout_milliseconds"
                ).fetchall()
                for row in rows:
                    self.posted += 1
                    self._posts.submit(_post, row)
                if not rows:
                    list(db.notifies(timeout=0.1, stop_after=1))


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _post(row: tuple[Any, ...]) -> None:
    """Send one request, once."""
    _, method, url, headers, body, milliseconds = row
    request = urllib.request.Request(url, body, {"User-Agent": "pg_net/0.20", **(headers or {})}, method=method)
    try:
        with _opener.open(request, timeout=milliseconds / 1000) as reply:
            reply.read()
    except (OSError, ValueError, http.client.HTTPException):
        pass


def token(role: str | None, lifetime: float = 3600, *, secret: str = SECRET, **claims: Any) -> str:
    """A token as Supabase signs them with one secret."""
    head = _b64(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    told = {"iss": "supabase", "exp": int(time.time() + lifetime), **claims} | ({"role": role} if role else {})
    body = _b64(json.dumps(told).encode())
    return f"{head}.{body}.{_sign(f'{head}.{body}', secret)}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _sign(signed: str, secret: str) -> str:
    return _b64(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.body = status, {"code": code, "details": None, "hint": None, "message": message}


def _role(header: str) -> str:
    kind, _, given = header.partition(" ")
    if kind.lower() != "bearer" or not given:
        return "anon"
    head, body, signature = given.split(".")
    if not hmac.compare_digest(signature, _sign(f"{head}.{body}", SECRET)):
        raise _Refused(401, "PGRST301", "JWSError JWSInvalidSignature")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    if claims["exp"] < time.time():
        raise _Refused(401, "PGRST303", "JWT expired")
    return str(claims.get("role", "anon"))


def _status(state: str, role: str) -> int:
    if state[:2] == "PT" and state[2:].isdigit():
        return int(state[2:])
    exact = {"42883": 404, "42P01": 404, "42501": 401 if role == "anon" else 403, "25006": 405, "P0001": 400}
    classes = {"08": 503, "28": 403, "53": 503} | dict.fromkeys(("25", "40", "54", "55", "57", "58", "P0", "XX"), 500)
    return exact.get(state) or classes.get(state[:2], 400)


class PostgREST:
    """`POST /rest/v1/rpc/<function>` with one text argument; a context manager.

    Args:
        dsn: as the role `authenticator`, which owns nothing and may become the role of the token.
    """

    def __init__(self, dsn: str) -> None:
        local = threading.local()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                role = "anon"
                try:
                    if not self.path.startswith("/rest/v1/rpc/"):
                        raise _Refused(404, "PGRST125", "Invalid path specified in request URL")
                    role = _role(self.headers.get("authorization", ""))
                    if getattr(local, "db", None) is None or local.db.closed:
                        local.db = psycopg.connect(dsn, autocommit=True)
                    self._reply(200, _call(local.db, self.path.removeprefix("/rest/v1/rpc/"), json.loads(body), role))
                except _Refused as no:
                    self._reply(no.status, json.dumps(no.body))
                except psycopg.Error as error:
                    state, said = error.sqlstate or "08006", error.diag
                    told = {"code": state, "details": said.message_detail, "hint": said.message_hint}
                    message = said.message_primary or str(error)
                    self._reply(_status(state, role), json.dumps({**told, "message": message}))

            def _reply(self, status: int, text: str) -> None:
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json; charset=utf-8")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> PostgREST:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _call(db: psycopg.Connection[Any], function: str, given: dict[str, Any], role: str) -> str:
    known = db.execute(
        "select 1 from pg_proc where pronamespace = 'public'::regnamespace and proname = %s", (function,)
    )
    if known.fetchone() is None or list(given) != ["request"]:
        arguments = ", ".join(sorted(given))
        missing = f"Could not find the function public.{function}({arguments}) in the schema cache"
        raise _Refused(404, "PGRST202", missing)
    with db.transaction():
        db.execute(
            "select set_config('search_path', 'public, extensions', true), set_config('role', %s, true)", (role,)
        )
        settings = db.execute(
            "select unnest(setconfig) from pg_db_role_setting join pg_roles r on r.oid = setrole where r.rolname = %s",
            (role,),
        ).fetchall()
        for (setting,) in settings:
            db.execute("select set_config(%s, %s, true)", setting.split("=", 1))
        query = sql.SQL("select to_json({}(request := %s))::text").format(sql.Identifier("public", function))
        answer = db.execute(query, (given["request"],)).fetchone()
    return answer[0] if answer is not None and answer[0] is not None else "null"
