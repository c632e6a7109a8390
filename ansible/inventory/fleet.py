#!/usr/bin/env python3
"""Dynamic inventory of a stack, from its outputs: `ansible all -i ansible/inventory/fleet.py -m ping`.

    AI_CLIENT_FLEET_STACK    stack to read (without it, the one that is selected)
    AI_CLIENT_FLEET_OUTPUTS  file with the outputs as JSON, instead of asking Pulumi
    AI_CLIENT_FLEET_CACHE_S  seconds that an answer of Pulumi's may be used again [0]

An answer is kept only for a stack and a backend that the environment names, and each use of it is said on standard
error. Where the backend is a folder, an answer is not used again once the stack's state has changed.

The ssh configuration and the pinned host keys are laid down in the user's cache folder, named by their content. Nothing
here is secret. Needs no more than Python's standard library and `pulumi` on PATH.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent.parent
KNOWN_HOSTS = "{known_hosts}"


def main(argv: list[str]) -> int:
    """Answers `--list` with the whole inventory and `--host NAME` with nothing, since `_meta` has it all."""
    if "--host" in argv:
        print("{}")
        return 0
    try:
        outputs = read_outputs()
        listed = as_list(outputs["inventory"])
    except (OSError, ValueError, KeyError) as error:
        print(
            f"inventory: the stack's outputs cannot be read: {error}; run 'pulumi up' first", file=sys.stderr
        )
        return 1
    config = lay_down_ssh(outputs["ssh"])
    if config:
        for variables in listed["_meta"]["hostvars"].values():
            variables["ansible_ssh_common_args"] = f"-F {config}"
    print(json.dumps(listed, indent=2))
    return 0


def read_outputs() -> dict[str, Any]:
    """The stack's outputs, from the file that the environment names or from Pulumi."""
    if given := os.environ.get("AI_CLIENT_FLEET_OUTPUTS"):
        return dict(json.loads(Path(given).read_text(encoding="utf-8")))
    kept = cache_file()
    if kept is None:
        return ask_pulumi()
    # Taken before the question: what changes meanwhile makes the answer old.
    state = state_mark()
    if (found := cached(kept, state)) is not None:
        return found
    outputs = ask_pulumi()
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace(kept, json.dumps({"asked_s": time.time(), "state": state, "outputs": outputs}))
    return outputs


def cache_file() -> Path | None:
    """Where an answer is kept; None where none may be, or where it is not clear whose answer it would be."""
    stack, backend = os.environ.get("AI_CLIENT_FLEET_STACK"), os.environ.get("PULUMI_BACKEND_URL")
    if longest_s() <= 0 or not stack or not backend:
        return None
    name = hashlib.sha256(json.dumps([backend, stack, str(PROJECT)]).encode()).hexdigest()[:16]
    return cache_folder() / "inventory" / f"{name}.json"


def longest_s() -> float:
    """Seconds that an answer may be used again."""
    return float(os.environ.get("AI_CLIENT_FLEET_CACHE_S") or 0)


def state_mark() -> list[object]:
    """What changes with every change of the stack's state, where the backend is a folder; nothing of another."""
    backend = os.environ["PULUMI_BACKEND_URL"]
    if not backend.startswith("file://"):
        return []
    stack = os.environ["AI_CLIENT_FLEET_STACK"].rpartition("/")[2]
    folder = Path(backend.removeprefix("file://")).expanduser() / ".pulumi" / "stacks"
    files = [path.stat() for path in sorted(folder.glob(f"**/{stack}.json*"))]
    return [[seen.st_mtime_ns, seen.st_size, seen.st_ino] for seen in files]


def cached(kept: Path, state: list[object]) -> dict[str, Any] | None:
    """The last answer, where it is young enough and the state has not changed since; says so."""
    try:
        answer = json.loads(kept.read_text(encoding="utf-8"))
        age_s = time.time() - answer["asked_s"]
        outputs = dict(answer["outputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not 0 <= age_s <= longest_s() or answer.get("state") != state:
        return None
    print(f"inventory: as Pulumi answered {age_s:.0f} s ago (AI_CLIENT_FLEET_CACHE_S)", file=sys.stderr)
    return outputs


def ask_pulumi() -> dict[str, Any]:
    """The stack's outputs, by Pulumi."""
    argv = ["pulumi", "stack", "output", "--json", "--non-interactive"]
    if stack := os.environ.get("AI_CLIENT_FLEET_STACK"):
        argv += ["--stack", stack]
    asked = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    if asked.returncode != 0:
        raise OSError(asked.stderr.strip() or f"pulumi ended with status {asked.returncode}")
    return dict(json.loads(asked.stdout))


def as_list(inventory: dict[str, Any]) -> dict[str, Any]:
    """The YAML form of an inventory as `--list` wants it."""
    listed: dict[str, Any] = {"_meta": {"hostvars": {}}}
    todo = [("all", inventory["all"])]
    while todo:
        name, group = todo.pop()
        hosts, children = group.get("hosts") or {}, group.get("children") or {}
        entry = {"hosts": list(hosts), "children": list(children), "vars": group.get("vars") or {}}
        listed[name] = {key: value for key, value in entry.items() if value}
        listed["_meta"]["hostvars"].update(hosts)
        todo += children.items()
    return listed


def lay_down_ssh(ssh: dict[str, str]) -> Path | None:
    """Writes the ssh configuration, unless there is nothing to pin and no jump host: then ssh's own serves."""
    if not ssh["knownHosts"] and "ProxyJump" not in ssh["config"]:
        return None
    folder = (
        cache_folder() / "ssh" / hashlib.sha256((ssh["config"] + ssh["knownHosts"]).encode()).hexdigest()[:16]
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace(folder / "known_hosts", ssh["knownHosts"])
    replace(folder / "ssh_config", ssh["config"].replace(KNOWN_HOSTS, str(folder / "known_hosts")))
    return folder / "ssh_config"


def cache_folder() -> Path:
    """The user's cache folder for fleets."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ai-client-fleet"


def replace(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old or the new text, never a part."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
