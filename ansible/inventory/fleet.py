#!/usr/bin/env python3
"""Dynamic inventory of a stack, from its outputs: `ansible all -i ansible/inventory/fleet.py -m ping`.

    AI_CLIENT_FLEET_STACK    stack to read (without it, the one that is selected)
    AI_CLIENT_FLEET_OUTPUTS  file with the outputs as JSON, instead of asking Pulumi
    AI_CLIENT_FLEET_CACHE_S  seconds that an answer of Pulumi's may be used again [0]
    AI_CLIENT_FLEET_WORDS    file with what `ai-client fleet --json` answered on a host: groups by it, such as
                             said_well, said_failing, said_silent, said_changed, said_release_0123456789ab

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


class UnknownStackError(Exception):
    """The environment names a stack that the backend does not have."""


def main(argv: list[str]) -> int:
    """Answers `--list` with the whole inventory and `--host NAME` with nothing, since `_meta` has it all."""
    if "--host" in argv:
        print("{}")
        return 0
    try:
        outputs = read_outputs()
        listed = as_list(outputs["inventory"])
    except UnknownStackError as error:
        print(f"inventory: {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError) as error:
        print(
            f"inventory: the stack's outputs cannot be read: {error}; run 'pulumi up' first", file=sys.stderr
        )
        return 1
    try:
        listed |= said_groups(listed["_meta"]["hostvars"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"inventory: AI_CLIENT_FLEET_WORDS cannot be read: {error}", file=sys.stderr)
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
    asked = run(argv)
    if stack and "no stack named" in asked.stderr:
        raise UnknownStackError(f"there is no stack '{stack}'; {remedy(known_stacks())}")
    if asked.returncode != 0:
        raise OSError(asked.stderr.strip() or f"pulumi ended with status {asked.returncode}")
    return dict(json.loads(asked.stdout))


def known_stacks() -> list[str]:
    """Names of the backend's stacks; none where Pulumi does not tell."""
    asked = run(["pulumi", "stack", "ls", "--json", "--non-interactive"])
    try:
        return [str(stack["name"]) for stack in json.loads(asked.stdout)]
    except (ValueError, KeyError, TypeError):
        return []


def remedy(stacks: list[str]) -> str:
    """What to do about a stack that does not exist."""
    if stacks:
        return f"set AI_CLIENT_FLEET_STACK to one of: {', '.join(stacks)}"
    return "the backend has none: check PULUMI_BACKEND_URL, or run 'pulumi up' first"


def run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    """A command in the project's folder, and what it printed."""
    return subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)


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


# A host says something every 16 s.
SILENT_S = 60
ALWAYS_SAID = ("well", "failing", "silent", "changed")


def said_groups(hosts: dict[str, Any]) -> dict[str, Any]:
    """Groups of the inventory's hosts by what they last said of themselves; none without such a file."""
    given = os.environ.get("AI_CLIENT_FLEET_WORDS")
    if not given:
        return {}
    said = {each["host"]: each for each in json.loads(Path(given).read_text(encoding="utf-8"))["hosts"]}
    # Always there, so that a pattern that names one is right while no host is in it.
    groups: dict[str, list[str]] = {f"said_{name}": [] for name in ALWAYS_SAID}
    for host in hosts:
        for name in said_of(said.get(host)):
            groups.setdefault(f"said_{name}", []).append(host)
    return {name: {"hosts": members} for name, members in groups.items()}


def said_of(word: dict[str, Any] | None) -> list[str]:
    """The groups of one host."""
    if word is None or word["age_s"] > SILENT_S:
        return ["silent"]
    names = ["well" if word["is_well"] else "failing"]
    if word["files"] == "changed":
        names.append("changed")
    for what in ("release", "version"):
        tail = "".join(letter for letter in word[what][:12] if letter.isalnum() or letter == ".").replace(
            ".", "_"
        )
        names += [f"{what}_{tail}"] if tail else []
    return names


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
