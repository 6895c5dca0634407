"""Stands in for `gcloud` and `curl`: notes every command, and knows what exists, so that a second run meets the first.

Started under either name by the scripts of the templates. The folder STANDIN holds the log and the state.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

HOME = Path(os.environ["STANDIN"])
STATE = HOME / "state.json"
VERBS = ("describe", "create", "update", "delete", "deploy")


def main(name: str, words: list[str]) -> int:
    with (HOME / "log.jsonl").open("a") as log:
        log.write(json.dumps([name, *words]) + "\n")
    count = len((HOME / "log.jsonl").read_text().splitlines())
    if str(count) == os.environ.get("STANDIN_FAILS_AT"):
        print("the connection was lost", file=sys.stderr)
        return 1
    state = json.loads(STATE.read_text()) if STATE.exists() else {}
    code = (curl if name == "curl" else gcloud)(words, state)
    STATE.write_text(json.dumps(state))
    return code


def gcloud(words: list[str], state: dict[str, str]) -> int:
    plain = [word for word in words if not word.startswith("-")]
    flags = dict(word.lstrip("-").partition("=")[::2] for word in words if word.startswith("--"))
    match plain:
        case ["config", "get-value", _]:
            print("demo")
        case ["projects", "describe", _]:
            print("123456789")
        case ["auth", "print-access-token"]:
            print("access")
        case ["secrets", "versions", "add", secret]:
            state[f"secrets {secret} value"] = sys.stdin.read()
        case ["secrets", "versions", "describe", _]:
            return 0 if f"secrets {flags['secret']} value" in state else refuse("no version")
        case ["secrets", "versions", "access", _]:
            print(state[f"secrets {flags['secret']} value"], end="")
        case [*_, "add-iam-policy-binding", _] if (member := flags["member"]) not in state:
            state[member] = "known"
            return refuse("the account is not known everywhere yet")
        case [*_, "add-iam-policy-binding" | "remove-iam-policy-binding", _] | ["services", "enable", *_]:
            pass
        case ["firestore", "indexes", *_]:
            return 0 if f"firestore databases {flags['database']}" in state else refuse("no such database")
        case ["storage", "rm", bucket]:
            return delete(f"storage buckets {bucket}", state)
        case _:
            return resource(plain, flags, state)
    return 0


def resource(plain: list[str], flags: dict[str, str], state: dict[str, str]) -> int:
    at = next(index for index, word in enumerate(plain) if word in VERBS)
    named = plain[-1] if len(plain) > at + 1 else flags["database"]
    group = plain[:at]
    if group == ["iam", "service-accounts"] and "@" not in named:
        named += f"@{flags['project']}.iam.gserviceaccount.com"
    key = " ".join([*group, named])
    match plain[at]:
        case "describe" | "update":
            return 0 if key in state else refuse(f"{key} does not exist")
        case "create":
            if key in state:
                return refuse(f"{key} exists already")
            state[key] = "made"
        case "deploy":
            state[key] = "deployed"
        case "delete":
            return delete(key, state)
    return 0


def delete(key: str, state: dict[str, str]) -> int:
    return 0 if state.pop(key, None) is not None else refuse(f"{key} does not exist")


def curl(words: list[str], state: dict[str, str]) -> int:
    method, address = words[words.index("--request") + 1], next(word for word in words if word.startswith("https://"))
    json.loads(words[words.index("--data") + 1])
    if address.endswith("/rulesets"):
        print('{"name": "projects/demo/rulesets/r1"}')
    elif "/releases" in address:
        if method == "PATCH" and "release" not in state:
            return 22
        state["release"] = "made"
    return 0


def refuse(why: str) -> int:
    print(f"ERROR: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[0]).name, sys.argv[1:]))
