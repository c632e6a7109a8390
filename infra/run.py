"""One Ansible run, as a process of its own: `python -m infra.run` with a JSON order on standard input.

The order holds the inventory, the ssh configuration and the secrets. Secrets go on to Ansible in the environment,
never in an argument or a file. Standard output gets one line of JSON with a result for each host, standard error one
line for each host that failed; neither ever holds a secret.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from infra import guard
from infra.errors import FleetError, PlaybookError
from infra.inventory import as_yaml
from infra.nodes import CloudInstance

KNOWN_HOSTS = "{known_hosts}"

_TAIL_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to run, and where.

    Attributes:
        playbook: path of the playbook below the project folder.
        inventory: inventory in its YAML form, as data.
        ssh_config: text of the ssh configuration, with KNOWN_HOSTS where the path of that file goes.
        known_hosts: text of the pinned host keys.
        secrets: environment variables that hold secrets.
        with_artefact: whether hosts may need the artefact; it is built first where this machine has none.
        check: whether to look only, and tell the differences.
        tags: parts of the role to run; all where empty.
        instance: what the one host is at its cloud; where that is gone, the host is not contacted. Empty elsewhere.
    """

    playbook: str
    inventory: Mapping[str, Any]
    ssh_config: str
    known_hosts: str
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    with_artefact: bool = False
    check: bool = False
    tags: tuple[str, ...] = ()
    instance: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
        """The order as the child reads it."""
        return json.dumps(asdict(self), sort_keys=True)

    def hosts(self) -> tuple[str, ...]:
        """Every host of the inventory."""
        return tuple(dict.fromkeys(_hosts(self.inventory)))


HostResults = dict[str, dict[str, Any]]


def execute(order: Order) -> tuple[HostResults, str]:
    """Runs Ansible and answers each host's result, and the end of what Ansible printed.

    Raises:
        PlaybookError: Ansible ended before any host had a result.
    """
    with tempfile.TemporaryDirectory(prefix="ai-client-fleet-") as scratch_name:
        scratch = Path(scratch_name)
        _write_inputs(order, scratch)
        status, output = _run_guarded(_argv(order, scratch), _environment(order, scratch), scratch)
        results = _read_results(scratch / "results.jsonl")
    tail = _without_secrets("\n".join(output.splitlines()[-_TAIL_LINES:]), order)
    if not results:
        raise PlaybookError(order.playbook, f"ended with status {status} before any host answered", tail)
    return results, tail


def _write_inputs(order: Order, scratch: Path) -> None:
    known_hosts = scratch / "known_hosts"
    known_hosts.write_text(order.known_hosts, encoding="utf-8")
    (scratch / "ssh_config").write_text(
        order.ssh_config.replace(KNOWN_HOSTS, str(known_hosts)), encoding="utf-8"
    )
    (scratch / "inventory.yml").write_text(as_yaml(dict(order.inventory)), encoding="utf-8")
    variables = {"ai_artefacts": _artefacts()} if order.with_artefact else {}
    (scratch / "variables.json").write_text(json.dumps(variables), encoding="utf-8")
    (scratch / "results.jsonl").touch()


def _artefacts() -> str:
    """The folder of the artefact that this checkout describes; its path is of this machine, so it is in no state."""
    built = subprocess.run(["tools/artefact/build"], capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise PlaybookError("the artefact", "could not be built", built.stderr.strip()[-2000:])
    return built.stdout.strip()


def _argv(order: Order, scratch: Path) -> list[str]:
    argv = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "--inventory",
        str(scratch / "inventory.yml"),
        "--extra-vars",
        f"@{scratch / 'variables.json'}",
    ]
    if order.check:
        argv += ["--check", "--diff"]
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
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(control_path_dir(order)),
        "AI_CLIENT_FLEET_RESULTS": str(scratch / "results.jsonl"),
        **order.secrets,
    }


def control_path_dir(order: Order) -> Path:
    """Where kept ssh connections of this fleet lie: two fleets with equal addresses must never share one."""
    identity = hashlib.sha256((order.ssh_config + order.known_hosts).encode()).hexdigest()[:8]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ai-client-fleet" / "cp" / identity


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


def failures(results: HostResults) -> list[str]:
    """A line for each host that failed or was not reached."""
    return [
        f"{host}: {'unreachable' if result.get('unreachable') else 'failed'}: {result.get('message', '')}"
        for host, result in results.items()
        if result.get("failed") or result.get("unreachable")
    ]


def main() -> int:
    """Reads the order, runs it, prints the results. Exit status 1 where a host failed."""
    signal.signal(signal.SIGTERM, _ended)
    raw = json.load(sys.stdin)
    order = Order(**{**raw, "tags": tuple(raw["tags"])})
    try:
        results, tail = _forgotten(order) or execute(order)
    except FleetError as error:
        print(error, file=sys.stderr)
        return 1
    summary = {host: {k: v for k, v in entry.items() if k != "diffs"} for host, entry in results.items()}
    print(json.dumps({"hosts": summary}, sort_keys=True))
    missing = sorted(set(order.hosts()) - set(results))
    failed = failures(results) + [f"{host}: gave no result: {tail}" for host in missing]
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def _forgotten(order: Order) -> tuple[HostResults, str] | None:
    """Results of a host whose instance is gone; None where there is a host to contact."""
    if not order.instance:
        return None
    from infra import cloud  # noqa: PLC0415  (settings and boto3 would double the start of every run)

    (host,) = order.hosts()
    with cloud.credentials_from(int(sys.argv[1]) if sys.argv[1:] else None):
        reason = cloud.fate(host, CloudInstance(**order.instance))
    return (
        ({host: {"changed": False, "message": f"{reason}: forgotten without contact"}}, "")
        if reason
        else None
    )


def _hosts(inventory: Mapping[str, Any]) -> list[str]:
    """Every host name in an inventory."""
    names: list[str] = []
    for group in inventory.values():
        names += (group or {}).get("hosts") or {}
        names += _hosts((group or {}).get("children") or {})
    return names


def _ended(signum: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
