"""What `everstep new --platform supabase` gives: a project of the Supabase CLI that applies as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from everstep.cli.new import create, templates
from tests.adapters.supabase.conftest import migration
from tests.components import requires_component
from tools.components import postgres, supabase_cli

pytestmark = pytest.mark.xdist_group("supabase")

NAMES = [name for name, template in templates().items() if "supabase" in template.platforms]


def test_there_is_one() -> None:
    assert "countdown" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_the_migration_of_this_version(name: str, tmp_path: Path) -> None:
    create(name, tmp_path / "mine", "supabase")
    (applied,) = (tmp_path / "mine/supabase/supabase/migrations").glob("*_everstep.sql")
    assert applied.read_bytes() == migration()
    assert (tmp_path / "mine/supabase/supabase/functions/everstep/index.ts").is_file()
    assert not (tmp_path / "mine/aws").exists()


def test_what_is_deployed_from_a_checkout_holds_it_too(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(templates()["countdown"].folder, mine, ignore=shutil.ignore_patterns("migrations"))
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("psql", "supabase"):
        (tools / tool).write_text(f'#!/bin/sh\necho "{tool} $* in $PWD" >> {tmp_path}/said\n')
        (tools / tool).chmod(0o755)
    (tools / "python3").symlink_to(sys.executable)
    environment = {
        **os.environ,
        **dict.fromkeys(("PROJECT_REF", "DB_URL", "TARGET", "SECRET"), "x"),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    for _ in range(2):
        subprocess.run(["sh", str(mine / "supabase/deploy.sh")], env=environment, check=True, capture_output=True)
    (applied,) = (mine / "supabase/supabase/migrations").glob("*_everstep.sql")
    assert applied.read_bytes() == migration()
    assert f"supabase db push --db-url x --yes in {mine}/supabase\n" in (tmp_path / "said").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_its_function_loads(name: str, tmp_path: Path) -> None:
    create(name, tmp_path / "mine", "supabase")
    main = tmp_path / "mine/supabase/main.py"
    env = {**os.environ, "EVERSTEP_SECRET": "s" * 16, "DATABASE_URL": "postgresql://localhost/x"}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "mine"), *sys.path])
    code = f"import runpy; print(type(runpy.run_path({str(main)!r})['handler']).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout.strip() == "Function", done.stderr


@pytest.mark.parametrize("name", NAMES[:1])
def test_the_supabase_cli_pushes_the_migration_and_says_so_once(name: str, tmp_path: Path) -> None:
    cli = supabase_cli.find()
    requires_component("supabase_cli", hint=supabase_cli.HINT, present=cli is not None)
    requires_component("postgres", hint=postgres.HINT, present=postgres.find() is not None)
    create(name, tmp_path / "mine", "supabase")
    with postgres.Server(settings={"fsync": "off"}) as server:

        def push() -> str:
            done = subprocess.run(
                [str(cli), "db", "push", "--db-url", f"{server.dsn}?sslmode=disable", "--yes"],
                cwd=tmp_path / "mine/supabase",
                env={**os.environ, "HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout + done.stderr

        push()
        assert "up to date" in push()
        with psycopg.connect(server.dsn) as connection:
            assert connection.execute("select everstep.version()").fetchone() == (2,)
