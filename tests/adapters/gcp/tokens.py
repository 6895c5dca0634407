"""Tokens as Google signs them, and the address where their keys are published. The real library checks them."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt, jwt


class Keys:
    """A key that signs, and its certificate."""

    def __init__(self, id: str = "k1") -> None:
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .sign(key, hashes.SHA256())
        )
        encoding = serialization.Encoding.PEM
        private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self.id = id
        self.certificates = {id: made.public_bytes(encoding).decode()}
        self._signer = crypt.RSASigner.from_string(private, id)

    def token(self, account: str, audience: str, **claims: Any) -> str:
        """An identity token; `claims` replace what it says."""
        now = int(time.time())
        usual = {
            "iss": "https://accounts.google.com",
            "aud": audience,
            "email": account,
            "email_verified": True,
            "sub": "1",
            "iat": now - 1,
            "exp": now + 3600,
        }
        said = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        return jwt.encode(self._signer, said).decode()


class Publisher:
    """Serves certificates over HTTP, and counts how often they are asked for."""

    def __init__(self, keys: Keys, max_age: int = 3600) -> None:
        self.keys = keys
        self.asked = 0
        self.failing = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                body = json.dumps(outer.keys.certificates).encode()
                self.send_response(500 if outer.failing else 200)
                self.send_header("Cache-Control", f"public, max-age={max_age}, must-revalidate")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}/certs"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
