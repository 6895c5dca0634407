"""`everstep check`: each thing that a body must not do is named with its line, and what is right stays unnamed."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from pathlib import Path

import pytest

from everstep import App
from everstep.staticcheck import Finding, check

HEAD = """
import asyncio, contextlib, functools, logging, os, random, secrets, subprocess, threading, time, uuid
import datetime as dt
import os.path as p
import urllib.request
from datetime import datetime, timedelta
from time import time as clock
from everstep import App, Context

app = App("checked")
CACHE = {}
SEEN = set()
LIMIT = 3
log = logging.getLogger(__name__)

@app.step
def charge(n):
    return time.time() + n

async def fetch(n):
    return n
"""
count = 0


def findings(body: str, folder: Path, *, more: str = "", head: str = "async def order(ctx, n):") -> list[Finding]:
    """What is found in a workflow with this body."""
    global count
    count += 1
    source = (
        f"{HEAD}\n{textwrap.dedent(more)}\n@app.workflow\n{head}\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
    )
    path = folder / f"checked{count}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
        return check(module.app)
    finally:
        del sys.modules[path.stem]


BAD = {
    "x = time.time()": "time.time",
    "x = clock()": "time.time",
    "x = time.perf_counter()": "clock",
    "time.sleep(1)": "ctx.sleep",
    "x = datetime.now()": "ctx.now()",
    "x = dt.datetime.utcnow()": "ctx.now()",
    "x = dt.date.today()": "ctx.now()",
    "x = random.choice([1, 2])": "ctx.random()",
    "x = random.Random()": "ctx.random()",
    "x = secrets.token_hex()": "ctx.random()",
    "x = uuid.uuid4()": "ctx.uuid()",
    "x = os.environ['HOME']": "environment",
    "x = os.environ.get('HOME')": "environment",
    "x = 'HOME' in os.environ": "environment",
    "x = os.getenv('HOME')": "environment",
    "x = os.listdir('.')": "real I/O",
    "x = p.exists('a')": "real I/O",
    "with open('x') as f: pass": "real I/O",
    "x = urllib.request.urlopen('http://x')": "real I/O",
    "import requests\nx = requests.get('http://x')": "real I/O",
    "import httpx as web\nx = web.get('http://x')": "real I/O",
    "from pathlib import Path\nx = Path('a').read_text()": "real I/O",
    "import socket\ns = socket.create_connection(('x', 1))": "real I/O",
    "subprocess.run(['ls'])": "real I/O",
    "await asyncio.to_thread(charge, 1)": "threads",
    "threading.Thread(target=print).start()": "threads",
    "asyncio.get_running_loop().run_in_executor(None, charge)": "threads",
    "print('x')": "printed again",
    "log.info('x')": "ctx.log",
    "logging.warning('x')": "ctx.log",
    "x = hash('a')": "process to process",
    "for x in {'a', 'b'}: pass": "order of a set",
    "for x in set(n): pass": "order of a set",
    "s = {'a'} | set(n)\nx = [y for y in s]": "order of a set",
    "s = frozenset(n)\nx = list(s)": "order of a set",
    "x = list({'a', 'b'}.union(n))": "order of a set",
    "s = {'a'}\nx = s.pop()": "arbitrary element",
    "ctx.sleep(1)": "nothing sleeps",
    "ctx.run(charge, 1)": "failure would go unnoticed",
    "ctx.options(id='x').rpc(charge, 1)": "failure would go unnoticed",
    "ctx.promise()": "cancelled at the end",
    "f = ctx.run(charge, 1)": "failure would go unnoticed",
    "c = ctx.options(timeout=3)\nc.run(charge, 1)": "failure would go unnoticed",
    "try:\n    pass\nexcept:\n    pass": "bare except",
    "try:\n    pass\nexcept BaseException:\n    pass": "except BaseException",
    "try:\n    pass\nexcept (ValueError, BaseException) as e:\n    pass": "except BaseException",
    "with contextlib.suppress(BaseException): pass": "suppress",
    "global LIMIT\nLIMIT = 4": "global LIMIT",
    "CACHE[n] = 1": "CACHE belongs to the module",
    "del CACHE[n]": "CACHE belongs to the module",
    "SEEN.add(n)": "SEEN belongs to the module",
    "for f in asyncio.as_completed([fetch(1), fetch(2)]): await f": "as_completed",
    "fs = [fetch(i) for i in range(3)]\nfor f in asyncio.as_completed(fs): await f": "as_completed",
    "x = charge(1)": "charge is a step",
}


@pytest.mark.parametrize("body", BAD)
def test_what_a_replay_cannot_repeat_is_named(body: str, tmp_path: Path) -> None:
    found = findings(body, tmp_path)

    assert len(found) == 1, found
    assert BAD[body] in f"{found[0].what} {found[0].instead}"
    assert found[0].workflow == "order"


GOOD = [
    "x = ctx.now(), ctx.random(), ctx.uuid()",
    "await ctx.run(charge, n)",
    "await ctx.run(lambda: time.time())",
    "def now(): return time.time()\nx = await ctx.run(now)",
    "await ctx.run(print, 'x')",
    "ctx.detached(order, n)",
    "f = ctx.run(charge, n)\nx = await f",
    "fs = [ctx.run(charge, i) for i in range(3)]\nx = await asyncio.gather(*fs)",
    "p1 = ctx.promise()\nawait ctx.run(charge, p1.id)",
    "for x in sorted({'a', 'b'}): pass",
    "x = 'a' in {'a', 'b'}, len({'a'}), max({1, 2})",
    "for x in {'a': 1}: pass",
    "s = {'a'}\ns = sorted(s)\nfor x in s: pass",
    "done, rest = await asyncio.wait([ctx.sleep(1), ctx.sleep(2)])\nfor d in done: d.result()",
    "try:\n    pass\nexcept BaseException:\n    raise",
    "try:\n    pass\nexcept Exception:\n    pass",
    "CACHE = {}\nCACHE[n] = 1",
    "x = CACHE.get(n)",
    "x = dt.timedelta(days=1), datetime(2026, 1, 1), timedelta(1)",
    "x = random.Random(7).random()",
    "x = uuid.uuid5(uuid.NAMESPACE_DNS, 'x')",
    "x = os.path.join('a', 'b'), p.basename('a/b')",
    "for f in asyncio.as_completed([ctx.run(charge, 1), ctx.run(charge, 2)]): await f",
    "ts = [asyncio.create_task(fetch(i)) for i in range(3)]\nfor f in asyncio.as_completed(ts): await f",
    "await asyncio.sleep(1)",
    "time = n\nx = time.time()",
    "ctx.log.info('x')",
    "x = time.time()  # everstep: ok",
]


@pytest.mark.parametrize("body", GOOD)
def test_what_a_replay_repeats_is_not_named(body: str, tmp_path: Path) -> None:
    assert findings(body, tmp_path) == []


def test_a_finding_names_file_and_line(tmp_path: Path) -> None:
    (found,) = findings("x = 1\ny = time.time()", tmp_path)

    line = Path(found.file).read_text().splitlines()[found.line - 1]
    assert line.strip() == "y = time.time()"
    assert found.to_dict() == found._asdict()


def test_a_function_that_the_body_calls_is_looked_at_too(tmp_path: Path) -> None:
    more = """
        def outer(n):
            return inner(n)

        def inner(n):
            return random.random()

        def unused():
            return random.random()
    """
    (found,) = findings("x = outer(n)", tmp_path, more=more)

    assert "random.random" in found.what
    assert "return random.random()" in Path(found.file).read_text().splitlines()[found.line - 1]


def test_a_helper_that_is_given_the_context_is_held_to_it(tmp_path: Path) -> None:
    more = """
        async def pause(c, n):
            c.sleep(n)
    """
    (found,) = findings("await pause(ctx, n)", tmp_path, more=more)

    assert "nothing sleeps" in found.what


def test_a_generator_workflow_awaits_by_yield(tmp_path: Path) -> None:
    head = "def order(context, n):"

    assert findings("yield context.sleep(1)\nx = yield context.run(charge, n)", tmp_path, head=head) == []
    (found,) = findings("context.sleep(1)\nyield context.sleep(1)", tmp_path, head=head)
    assert "nothing sleeps" in found.what


def test_a_workflow_under_another_name_and_decorator_is_found(tmp_path: Path) -> None:
    more = """
        @app.workflow(
            name="other",
            version=2,
        )
        async def second(ctx):
            return time.time()
    """
    (found,) = findings("pass", tmp_path, more=more)

    assert found.workflow == "other"


def test_a_workflow_without_source_is_passed_over() -> None:
    app = App("nowhere")
    exec("async def ghost(ctx):\n    import time\n    return time.time()", space := {})
    app.workflow(space["ghost"])

    assert check(app) == []
