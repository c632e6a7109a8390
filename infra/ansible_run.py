"""Ansible as a child process that never outlives its starter, and each host's result from it.

Secrets go to Ansible in the environment, never in an argument or a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra import guard, releases
from infra.errors import PlaybookError
from infra.inventory import as_yaml
from infra.order import KNOWN_HOSTS, Order
from infra.scratch import scratch_folder
from infra.ssh import connections_folder, with_kept_connections

_TAIL_LINES = 12
_JUMP_S = 60

HostResults = dict[str, dict[str, Any]]


def execute(order: Order, *, run: str = "", limit: Sequence[str] = ()) -> tuple[HostResults, str]:
    """Runs Ansible and answers each host's result, and the end of what Ansible printed.

    Args:
        order: what to run.
        run: name of the roll-out, under which hosts keep what it changed so that it can be undone.
        limit: hosts of the order's inventory to run on; all where empty.

    Raises:
        PlaybookError: Ansible ended before any host had a result.
    """
    with scratch_folder() as scratch:
        _write_inputs(order, scratch, run=run)
        _open_jump_hosts(order, scratch)
        status, output = _run_guarded(_argv(order, scratch, limit), _environment(order, scratch), scratch)
        results = _read_results(scratch / "results.jsonl")
    tail = _without_secrets("\n".join(output.splitlines()[-_TAIL_LINES:]), order)
    if not results:
        raise PlaybookError(order.playbook, f"ended with status {status} before any host answered", tail)
    return results, tail


def _write_inputs(order: Order, scratch: Path, *, run: str) -> None:
    known_hosts = scratch / "known_hosts"
    known_hosts.write_text(order.known_hosts, encoding="utf-8")
    kept = with_kept_connections(order.ssh_config, order.known_hosts, str(connections_folder()))
    (scratch / "ssh_config").write_text(kept.replace(KNOWN_HOSTS, str(known_hosts)), encoding="utf-8")
    (scratch / "inventory.yml").write_text(as_yaml(dict(order.inventory)), encoding="utf-8")
    variables = {"ai_run": run} | ({"ai_artefacts": _artefacts(order)} if order.with_artefact else {})
    (scratch / "variables.json").write_text(json.dumps(variables), encoding="utf-8")
    (scratch / "results.jsonl").touch()


def _artefacts(order: Order) -> str:
    """The folder that hosts install from: this checkout's artefact, or the one that a host is pinned to.

    Paths are of this machine, so they are in no state.
    """
    built = subprocess.run(["tools/artefact/build"], capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise PlaybookError("the artefact", "could not be built", built.stderr.strip()[-2000:])
    return releases.folder_expression(built.stdout.strip(), releases.in_inventory(order.inventory))


def _argv(order: Order, scratch: Path, limit: Sequence[str]) -> list[str]:
    argv = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "--inventory",
        str(scratch / "inventory.yml"),
        "--extra-vars",
        f"@{scratch / 'variables.json'}",
    ]
    if order.check:
        argv += ["--check", "--diff"]
    if limit:
        argv += ["--limit", ",".join(limit)]
    if order.tags:
        argv += ["--tags", ",".join(order.tags)]
    return [*argv, order.playbook]


def _environment(order: Order, scratch: Path) -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_CONFIG": "ansible/ansible.cfg",
        "ANSIBLE_HOME": str(scratch / "ansible"),
        "ANSIBLE_LOCAL_TEMP": str(scratch / "tmp"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_SSH_COMMON_ARGS": f"-F {scratch / 'ssh_config'}",
        # Connections are kept by the ssh configuration, which knows whose host an address is.
        "ANSIBLE_SSH_ARGS": "-o Compression=no",
        "AI_CLIENT_FLEET_RESULTS": str(scratch / "results.jsonl"),
        **order.secrets,
    }


def _open_jump_hosts(order: Order, scratch: Path) -> None:
    """Opens one connection to each jump host before all hosts behind it ask for one at once.

    sshd drops connections that come together before they have logged in. A failure is Ansible's to report.
    """
    jumps = dict.fromkeys(re.findall(r"^  ProxyJump (.+)$", order.ssh_config, flags=re.MULTILINE))
    for name in dict.fromkeys(hop for jump in jumps for hop in jump.split(",")):
        argv = ["ssh", "-F", str(scratch / "ssh_config"), name, "true"]
        # No pipes: the connection that stays open would hold their ends, and their reader would wait for it.
        quiet = subprocess.DEVNULL
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(argv, stdin=quiet, stdout=quiet, stderr=quiet, timeout=_JUMP_S, check=False)


def _run_guarded(argv: list[str], environment: Mapping[str, str], scratch: Path) -> tuple[int, str]:
    """Runs a program that ends when this process ends, even by SIGKILL (see guard)."""
    guarded = [sys.executable, "-I", "-S", str(Path(guard.__file__)), str(scratch), *argv]
    with subprocess.Popen(
        guarded,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        text=True,
        errors="replace",
        start_new_session=True,
    ) as program:
        if program.stdout is None:
            raise PlaybookError(argv[0], "gave no output", "run it by hand")
        output = program.stdout.read()
        return program.wait(), output


def _read_results(path: Path) -> HostResults:
    results: HostResults = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        results[entry.pop("host")] = entry
    return results


def _without_secrets(text: str, order: Order) -> str:
    for secret in order.secrets.values():
        text = text.replace(secret, "[secret]")
    return text
