"""What `everstep check` refuses, as data: a dotted name, why it does not belong in a body, and what to write instead.

A rule for `random` covers `random.choice` too; the longest name that fits decides, and None is an exception to a rule.
"""

from __future__ import annotations

from typing import NamedTuple

OK_MARK = "# everstep: ok"


class Rule(NamedTuple):
    why: str
    instead: str


_CLOCK = Rule("the clock differs in every replay", "ctx.now()")
_RANDOM = Rule("randomness differs in every replay", "ctx.random(), or a step")
_UUID = Rule("it differs in every replay", "ctx.uuid()")
_SETTINGS = Rule("the environment differs between processes", "an argument, ctx.dependency(...), or a step")
_IO = Rule("real I/O happens again in every replay", "a step: await ctx.run(...)")
_SLEEP = Rule("it blocks the invocation and is not durable", "await ctx.sleep(...)")
_PARALLEL = Rule(
    "threads and processes run in no order that can be repeated", "a step, or asyncio.gather over operations"
)
_PRINT = Rule("it is printed again in every replay", "ctx.log, or a step")
_HASH = Rule("it differs from process to process", "a step, or a value that does not depend on it")

LOGGING = Rule("it is logged again in every replay", "ctx.log")

_RULES: dict[str, Rule | None] = {
    "time.time": _CLOCK,
    "time.time_ns": _CLOCK,
    "time.monotonic": _CLOCK,
    "time.monotonic_ns": _CLOCK,
    "time.perf_counter": _CLOCK,
    "time.perf_counter_ns": _CLOCK,
    "time.localtime": _CLOCK,
    "time.gmtime": _CLOCK,
    "time.sleep": _SLEEP,
    "datetime.datetime.now": _CLOCK,
    "datetime.datetime.utcnow": _CLOCK,
    "datetime.datetime.today": _CLOCK,
    "datetime.date.today": _CLOCK,
    "random": _RANDOM,
    "secrets": _RANDOM,
    "numpy.random": _RANDOM,
    "os.urandom": _RANDOM,
    "uuid.uuid1": _UUID,
    "uuid.uuid4": _UUID,
    "uuid.uuid7": _UUID,
    "os.environ": _SETTINGS,
    "os.getenv": _SETTINGS,
    "os.getpid": _SETTINGS,
    "os.cpu_count": _SETTINGS,
    "os.path": None,
    "os.path.exists": _IO,
    "os.path.isfile": _IO,
    "os.path.isdir": _IO,
    "os.path.getsize": _IO,
    "os.path.getmtime": _IO,
    "os.fspath": None,
    "os": _IO,
    "io.open": _IO,
    "shutil": _IO,
    "glob": _IO,
    "tempfile": _IO,
    "sqlite3": _IO,
    "socket": _IO,
    "ssl": _IO,
    "smtplib": _IO,
    "ftplib": _IO,
    "http.client": _IO,
    "urllib.request": _IO,
    "urllib3": _IO,
    "requests": _IO,
    "httpx": _IO,
    "aiohttp": _IO,
    "boto3": _IO,
    "psycopg": _IO,
    "psycopg2": _IO,
    "asyncpg": _IO,
    "redis": _IO,
    "openai": _IO,
    "anthropic": _IO,
    "google.cloud": _IO,
    "asyncio.open_connection": _IO,
    "asyncio.start_server": _IO,
    "asyncio.create_subprocess_exec": _IO,
    "asyncio.create_subprocess_shell": _IO,
    "asyncio.to_thread": _PARALLEL,
    "asyncio.run": Rule("a body runs in a loop already", "await it"),
    "subprocess": _IO,
    "threading": _PARALLEL,
    "multiprocessing": _PARALLEL,
    "concurrent.futures": _PARALLEL,
    "logging.debug": LOGGING,
    "logging.info": LOGGING,
    "logging.warning": LOGGING,
    "logging.error": LOGGING,
    "logging.exception": LOGGING,
    "logging.critical": LOGGING,
    "logging.log": LOGGING,
}

NAMES = {
    "open": _IO,
    "input": _IO,
    "print": _PRINT,
    "hash": _HASH,
    "id": _HASH,
}
"""Built-in functions."""

METHODS = {
    "read_text": _IO,
    "write_text": _IO,
    "read_bytes": _IO,
    "write_bytes": _IO,
    "iterdir": _IO,
    "run_in_executor": _PARALLEL,
}
"""Methods that mean the same on whatever they are called."""

MUTATORS = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove"}
    | {"reverse", "setdefault", "sort", "update"}
)


def rule_for(name: str) -> Rule | None:
    """The rule of the longest prefix of a dotted name that has one."""
    while name:
        if name in _RULES:
            return _RULES[name]
        name = name.rpartition(".")[0]
    return None
