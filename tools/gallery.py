"""`python -m tools.gallery`: the pages of docs/systems/, one for each system, made from its test file; `--check` says
whether they are what it would make.

A page shows what the system is, its program, how to run it and what its checks prove. Nothing on it is written twice:
the program is the one that the tests run (see `programs`), and what is proven are their names. Only the commands are
here, and `tests/docs/test_gallery.py` gives every one of them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tools.programs import read

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "systems"
TAB = 41
"""The one whose program is a page in a browser."""
_FILES = {TAB: ROOT / "tests" / "gateway" / "test_browser_worker.py"}
_TAB_PROGRAM = ROOT / "tests" / "gateway" / "programs" / "page.mjs"

RUN: dict[int, tuple[str, ...]] = {
    1: ("everstep run hello_world:app greet World --id hello",),
    2: ("everstep run durable_sleep:app sleeper 0.5 --id nap",),
    3: ("everstep new countdown demo", "cd demo", "everstep run app:app countdown 3 0.1 --id c1"),
    4: ("everstep run factorial:app factorial 5 --id factorial-5", "everstep ls --prefix factorial-"),
    5: (
        "everstep dev calculator:ops --port 0 &",
        """everstep run calculator:app = '["*", ["+", 1, 2], ["-", 3, 4]]' --id e1""",
    ),
    6: (
        "everstep dev async_rpc:b --port 0 &",
        "everstep dev async_rpc:c --port 0 &",
        "everstep run async_rpc:a foo --id await-chain",
    ),
    7: ("everstep dev worker_group:group --port 0 &", "everstep run worker_group:app spread 3 --id s1"),
    8: ("everstep run notifications:app notify kim --id n1",),
    9: ("""everstep run work_items:app process_all '["alpha", "beta", "gamma"]' --id p1""",),
    10: ('everstep run image_generation:app variations "a lighthouse" --id i1',),
    11: ('everstep schedule add nightly "0 3 * * *" cron:app nightly sales', "everstep schedule list"),
    12: (
        "everstep run human_in_the_loop:app signup ann@example.org --id s1 --timeout 3.5  # exit code 3: it waits",
        "everstep resolve s1.1 confirmed",
        "everstep run human_in_the_loop:app signup ann@example.org --id s1",
    ),
    13: (
        "everstep run summarize_with_approval:app summarize_page https://example.org --id s1 --timeout 0.5"
        "  # exit code 3: it waits",
        "everstep resolve s1.3 true",
        "everstep run summarize_with_approval:app summarize_page https://example.org --id s1",
    ),
    14: ("""everstep run node_drain:app drain_all '["node-1", "node-3"]' 0.01 --id d1""",),
    15: (
        "everstep run external_job:app run_notebook sales --id j1 --timeout 0.5  # exit code 3: it waits",
        """everstep resolve j1.1 '{"rows": 12}'""",
        "everstep run external_job:app run_notebook sales --id j1",
    ),
    16: ("everstep run one_click_buy:app buy book 0.5 --id b1",),
    17: ("everstep run async_http_api:workers process task-1 --id task-1",),
    18: (
        """everstep run order_endpoint:app handle_order '{"id": "17", "sku": "book", "quantity": 3}' --id order/17""",
    ),
    19: ("everstep run report_action:app report sales kim@example.org --id report/sales",),
    20: ("everstep run embedding:app add --id sum",),
    21: ("""everstep run lambda_trigger:app document '"7"' in/7.pdf 1 --id doc-7""",),
    22: (
        """everstep run onboarding:app onboard '{"id": "3f2b8c1d-7aa4", "email": "kim@example.org"}' --id onboard/1""",
    ),
    23: ("""everstep run webhook:app paid '{"id": "evt_1", "customer": "c-7", "amount": 4200}' --id webhook/evt_1""",),
    24: ("everstep run queue_worker:app delete_account a1 --id a1",),
    25: (
        "everstep run money_transfer:app transfer alice bob 50 --id t1",
        "everstep run money_transfer:app transfer alice frozen 75 --id t2",
    ),
    26: ("everstep run transfer_api:app transfer ann ben 5000 --id t1",),
    27: ("everstep run trip:app book_trip calm --id t1", "everstep run trip:app book_trip busy --id t2"),
    28: ("everstep run food_delivery:app deliver_food near --id f1",),
    29: ("everstep run order_lifecycle:app lifecycle o-1 --id o-1", "everstep tree o-1"),
    30: ("""everstep run durable_entity:app session ann '["search", "payment"]' 0.5 --id s1""",),
    31: ("""everstep run event_sourcing:app project '[{"kind": "opened", "subject": "kim"}]' --id p1""",),
    32: ("""everstep run batch:app import_rows '[{"number": 1, "text": "a"}, {"number": 2, "text": "b"}]' --id b1""",),
    33: ("everstep run rate_limited:app call_all 3 --id r1",),
    34: (
        """everstep run priority_queue:app work_off"""
        """ '[{"id": "job-1", "tier": "low"}, {"id": "job-2", "tier": "critical"}]' --id q1""",
    ),
    35: ("""everstep run mutex:app in_turn printer '["A", "B", "C"]' --id lock-printer""",),
    36: ("""everstep run infinite_monitoring:app monitor '["web", "database"]' 1 --id m1""",),
    37: ("everstep new chess demo", "cd demo", "everstep run app:app chess 1 0.01 4 --id game"),
    38: ("everstep run write_last_read_first:app create_account kim --id a1",),
    39: (
        'everstep run encryption:app pay 4111-1111-1111-1111 "Kim Larsson" 4200 --id o1 --timeout 0.5'
        "  # exit code 3: it waits",
        "everstep resolve o1.4 open-sesame --app encryption:app",
        'everstep run encryption:app pay 4111-1111-1111-1111 "Kim Larsson" 4200 --id o1',
    ),
    40: ("everstep run token_auth:app child a --id worker-1:x",),
    TAB: ("python -m pytest tests/gateway/test_browser_worker.py",),
    42: ("everstep bash --group gpu &", "everstep run on_premise_faas:app submit gpu 'echo hello' --id job-1"),
    43: (
        "everstep dev proposal_scoring:workers --port 0 &",
        "everstep run proposal_scoring:app score_proposal p7 --id score-proposal-p7",
    ),
    44: ("everstep run social_graph:app walk dot 1 --id walk-dot",),
    45: ("everstep run agent_pipeline:app publish tides --id p1",),
    46: ("everstep run deep_research:app research tides 1 --id r1", "everstep tree r1"),
    47: ("everstep run chatbot:app turn '[]' Hello! --id s/turn-1",),
    48: (
        "everstep run travel_assistant:app plan_trip Rome 2 --id trip --timeout 0.5  # exit code 3: it waits",
        "everstep resolve trip.2 Basel",
        "everstep run travel_assistant:app plan_trip Rome 2 --id trip",
    ),
    49: ("everstep run reminder:app assist yesterday --id r1",),
    50: ("everstep run news_agent:app follow tides 1 --id n1",),
    51: (
        "everstep run mcp_tools:app forecast 52 4.9 --id f1",
        "everstep mcp mcp_tools:app < /dev/null  # for a client that speaks MCP on a pipe",
    ),
    52: (
        "everstep run mcp_coordination:app gather papers --id job-papers",
        "everstep mcp mcp_coordination:tools < /dev/null  # for a client that speaks MCP on a pipe",
    ),
    53: (
        "everstep run mcp_timer:app timer tea 0.5 --id timer-tea",
        "everstep mcp mcp_timer:tools < /dev/null  # for a client that speaks MCP on a pipe",
    ),
    54: ("everstep bash &", "everstep run bash:app nightly 'echo hello $1' --id n1"),
}


class Page(NamedTuple):
    path: Path
    text: str


def files() -> dict[int, Path]:
    """The test file of each system."""
    own = {int(path.name[5:7]): path for path in sorted((ROOT / "tests" / "systems").glob("test_[0-9][0-9]_*.py"))}
    return dict(sorted((own | _FILES).items()))


def pages() -> list[Page]:
    """All of them, in order."""
    systems = {number: read(path) for number, path in files().items()}
    programs = _formatted({number: one.program for number, one in systems.items() if number != TAB})
    found = []
    for number, one in systems.items():
        source = files()[number].relative_to(ROOT).as_posix()
        name = one.name.replace("_", "-")
        if number == TAB:
            shown, place = f"```js\n{_TAB_PROGRAM.read_text(encoding='utf-8')}```", "from a checkout:"
        else:
            shown = f"```python of {source}\n{programs[number]}```"
            place = f"with the program in `{one.name}.py`:" if RUN[number][0].split()[1] != "new" else ""
        words = [
            f"# {number}. {one.name.replace('_', ' ').capitalize()}",
            f"{one.about[0].upper()}{one.about[1:]}",
            shown,
            f"## Run it{f', {place}' if place else ''}",
            "```sh\n{}\n```".format("\n".join(RUN[number])),
            "## What its checks prove",
            "\n".join(f"* {sentence}" for sentence in one.proves),
            f"[The checks](../../{source}) run in every test run. [All systems](../systems.md)",
        ]
        found.append(Page(PAGES / f"{number:02}-{name}.md", "\n\n".join(words) + "\n"))
    return found


def _formatted(programs: dict[int, str]) -> dict[int, str]:
    """By the project's own rules: imports in order and none that nothing uses."""
    ruff = [str(Path(sys.executable).parent / "ruff")]
    config = ["--quiet", "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    with tempfile.TemporaryDirectory() as place:
        paths = {number: Path(place) / f"program_{number}.py" for number in programs}
        for number, path in paths.items():
            future = "" if "from __future__" in programs[number] else "from __future__ import annotations\n\n"
            path.write_text(future + programs[number], encoding="utf-8")
        subprocess.run([*ruff, "check", *config, "--select", "I,F401", "--fix", place], check=True)
        subprocess.run([*ruff, "format", *config, place], check=True)
        return {number: path.read_text(encoding="utf-8") for number, path in paths.items()}


def main(arguments: list[str]) -> int:
    made = pages()
    stale = [page for page in made if not page.path.is_file() or page.path.read_text(encoding="utf-8") != page.text]
    extra = sorted({*PAGES.glob("*.md")} - {page.path for page in made})
    if "--check" not in arguments:
        PAGES.mkdir(exist_ok=True)
        for page in stale:
            page.path.write_text(page.text, encoding="utf-8")
        for path in extra:
            path.unlink()
        print(f"{len(made)} pages, {len(stale)} written, {len(extra)} removed")
        return 0
    for path in [*(page.path for page in stale), *extra]:
        print(f"{path.relative_to(ROOT)} is not what its test file says; run `python -m tools.gallery`")
    return 1 if stale or extra else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
