#!/usr/bin/env python3
"""Dynamic inventory of a stack, from its outputs: `ansible all -i ansible/inventory/fleet.py -m ping`.

    AI_CLIENT_FLEET_STACK    stack to read (without it, the one that is selected)
    AI_CLIENT_FLEET_OUTPUTS  file with the outputs as JSON, instead of asking Pulumi

The ssh configuration and the pinned host keys are laid down in the user's cache folder, named by their content. Nothing
here is secret. Needs no more than Python's standard library and `pulumi` on PATH.
"""

import hashlib
import json
import os
import subprocess
import sys
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
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ai-client-fleet" / "ssh"
    folder = base / hashlib.sha256((ssh["config"] + ssh["knownHosts"]).encode()).hexdigest()[:16]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace(folder / "known_hosts", ssh["knownHosts"])
    replace(folder / "ssh_config", ssh["config"].replace(KNOWN_HOSTS, str(folder / "known_hosts")))
    return folder / "ssh_config"


def replace(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old or the new text, never a part."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
