"""What a function is told about itself by its environment; the templates' `deploy.sh` sets every one of these."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from everstep.errors import InvalidArgument
from everstep.peers import read_peers

WAKE_PATH = "/wake"
"""Where wake-ups arrive, below the function's address."""

CERTIFICATES = "https://www.googleapis.com/oauth2/v1/certs"

_LONGEST = 1800
"""Seconds: Cloud Tasks waits no longer for an answer."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where everything is.

    Attributes:
        store: EVERSTEP_STORE, a URL; by default the project's default database.
        queue: EVERSTEP_QUEUE, `projects/<project>/locations/<region>/queues/<queue>`.
        url: EVERSTEP_URL, the function's own address.
        account: EVERSTEP_ACCOUNT, the service account that wake-ups come from.
        callers: that account, and those named by EVERSTEP_CALLERS (Pub/Sub, Eventarc, Scheduler), with commas between.
        audiences: EVERSTEP_AUDIENCES, what tokens may be made out to, with commas between; the address by default.
        bucket: EVERSTEP_BUCKET, for payloads too large for a document; "" where there is none.
        timeout: EVERSTEP_TIMEOUT, the seconds an invocation may take, as the function is deployed.
        steps_per_invocation: EVERSTEP_STEPS_PER_INVOCATION; None where it is not set.
        token: EVERSTEP_TOKEN, the bearer token of the HTTP API; without one only `callers` may use it.
        secret: EVERSTEP_SECRET, which signs the links under `/approve/`; without one there are none.
        peers: EVERSTEP_PEERS, functions of other Apps on the same database: `name=url`, with commas between. Their
            callers must name the account of this one.
        tasks: EVERSTEP_TASKS_HOST, `host:port` of something that stands in for Cloud Tasks; "" for the service.
        certificates: EVERSTEP_CERTIFICATES, where the keys that sign tokens are published.
    """

    store: str = ""
    queue: str = ""
    url: str = ""
    account: str = ""
    callers: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    bucket: str = ""
    timeout: int = 60
    steps_per_invocation: int | None = None
    token: str = ""
    secret: str = ""
    peers: Mapping[str, str] = field(default_factory=dict)
    tasks: str = ""
    certificates: str = CERTIFICATES

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """The settings of an environment; this process's by default. Raises InvalidArgument, naming the variable."""
        env = os.environ if environ is None else environ
        url = env.get("EVERSTEP_URL", "").rstrip("/")
        account = env.get("EVERSTEP_ACCOUNT", "")
        project = env.get("GOOGLE_CLOUD_PROJECT") or env.get("GCP_PROJECT") or ""
        steps = _whole(env, "EVERSTEP_STEPS_PER_INVOCATION", 0)
        return cls(
            store=env.get("EVERSTEP_STORE") or (f"firestore://{project}" if project else ""),
            queue=env.get("EVERSTEP_QUEUE", ""),
            url=url,
            account=account,
            callers=tuple(dict.fromkeys(filter(None, [account, *_list(env, "EVERSTEP_CALLERS")]))),
            audiences=tuple(_list(env, "EVERSTEP_AUDIENCES")) or ((url,) if url else ()),
            bucket=env.get("EVERSTEP_BUCKET", ""),
            timeout=_whole(env, "EVERSTEP_TIMEOUT", 60) or 60,
            steps_per_invocation=steps or None,
            token=env.get("EVERSTEP_TOKEN", ""),
            secret=env.get("EVERSTEP_SECRET", ""),
            peers=read_peers(env.get("EVERSTEP_PEERS", "")),
            tasks=env.get("EVERSTEP_TASKS_HOST", ""),
            certificates=env.get("EVERSTEP_CERTIFICATES") or CERTIFICATES,
        )

    def of_peer(self, url: str) -> Settings:
        """As these, for tasks that call another function: how long that may take is not known here."""
        return replace(self, url=url.rstrip("/"), audiences=(url.rstrip("/"),), timeout=_LONGEST)

    @property
    def deadline(self) -> int:
        """Seconds that Cloud Tasks is to wait for an answer: a little longer than an invocation may take."""
        return max(15, min(self.timeout + 5, _LONGEST))


def _list(env: Mapping[str, str], name: str) -> list[str]:
    return [part.strip() for part in env.get(name, "").split(",") if part.strip()]


def _whole(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdecimal():
        raise InvalidArgument(f"{name}={text!r} is not a whole number")
    return int(text)
