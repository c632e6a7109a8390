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
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.errors import PlaybookError
from infra.hosts.inventory import as_yaml
from infra.playbook import pinned_releases, supervise
from infra.playbook.environment import cleaned
from infra.playbook.remedies import with_remedy
from infra.playbook.request import KNOWN_HOSTS, RunRequest
from infra.playbook.run_folder import scratch_folder
from infra.playbook.ssh import connections_folder, with_kept_connections
from infra.project_files import PROJECT
from infra.secret_texts import mask_values
from infra.terminal import inert

_TAIL_LINES = 12
_JUMP_S = 60
# Each host's result as soon as it has one, a line each; tools/up reads along.
_RESULTS = "results.jsonl"
_SSH_FAILED = 255
_JUMP = re.compile(r"^Host (\S+)[^\n]*\n(?:  [^\n]*\n)*?  ProxyJump (\S+)$", re.MULTILINE)
# What the role takes for a look that has no build to compare with.
_UNBUILT = "unbuilt"

HostResults = dict[str, dict[str, Any]]


def execute(request: RunRequest, *, run: str = "", limit: Sequence[str] = ()) -> tuple[HostResults, str]:
    """Runs Ansible and answers each host's result, and the end of what Ansible printed.

    Args:
        request: what to run.
        run: name of the roll-out, under which hosts keep what it changed so that it can be undone.
        limit: hosts of the request's inventory to run on; all where empty.

    Raises:
        PlaybookError: Ansible ended before any host had a result.
    """
    with scratch_folder() as scratch, _in_memory(scratch / _RESULTS):
        _write_inputs(request, scratch, run=run)
        dead = _open_jump_hosts(request, scratch)
        status, output = _run_guarded(_argv(request, scratch, limit), _environment(request, scratch), scratch)
        results = named_jump_hosts(_read_results(scratch / _RESULTS), request.ssh_config, dead=dead)
    tail = _masked("\n".join(output.splitlines()[-_TAIL_LINES:]), request.secrets.values())
    results = {
        host: with_remedy(_masked(result, request.secrets.values())) for host, result in results.items()
    }
    if not results:
        raise PlaybookError(request.playbook, f"ended with status {status} before any host answered", tail)
    return results, tail


def _write_inputs(request: RunRequest, scratch: Path, *, run: str) -> None:
    known_hosts = scratch / "known_hosts"
    known_hosts.write_text(request.known_hosts, encoding="utf-8")
    kept = with_kept_connections(request.ssh_config, request.known_hosts, str(connections_folder()))
    (scratch / "ssh_config").write_text(kept.replace(KNOWN_HOSTS, str(known_hosts)), encoding="utf-8")
    (scratch / "inventory.yml").write_text(as_yaml(dict(request.inventory)), encoding="utf-8")
    variables = {"ai_run": run} | _own_tasks(request)
    variables |= {"ai_artefacts": _artefacts(request)} if request.with_artefact else {}
    (scratch / "variables.json").write_text(json.dumps(variables), encoding="utf-8")


@contextlib.contextmanager
def _in_memory(path: Path) -> Iterator[None]:
    """A file in memory alone, and a link to it: what hosts say may hold a secret, and a kill leaves it nowhere."""
    with os.fdopen(os.memfd_create(path.name), "rb") as file:
        path.symlink_to(f"/proc/{os.getpid()}/fd/{file.fileno()}")
        yield


def _own_tasks(request: RunRequest) -> dict[str, str]:
    """Where the group's own tasks are on this machine; a look runs none."""
    files = {} if request.check else {"ai_before_tasks": request.before, "ai_after_tasks": request.after}
    return {name: str(Path(file).resolve()) for name, file in files.items() if file}


def _artefacts(request: RunRequest) -> str:
    """The folder that hosts install from: this checkout's artefact, or the one that a host is pinned to.

    Paths are of this machine, so they are in no state. A look builds nothing: without a build, what is installed on a
    host counts as what is wanted, and the host says so.
    """
    options = ["--own"] if pinned_releases.wants_own_python(request.inventory) else []
    options += ["--if-built"] if request.check else []
    argv, environment = [str(PROJECT / "tools/artefact/build"), *options], cleaned(os.environ)
    built = subprocess.run(argv, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise PlaybookError("the artefact", "could not be built", built.stderr.strip()[-2000:])
    pins = pinned_releases.in_inventory(request.inventory)
    return pinned_releases.folder_expression(built.stdout.strip() or _UNBUILT, pins)


def _argv(request: RunRequest, scratch: Path, limit: Sequence[str]) -> list[str]:
    argv = [
        str(_program("ansible-playbook")),
        "--inventory",
        str(scratch / "inventory.yml"),
        "--extra-vars",
        f"@{scratch / 'variables.json'}",
    ]
    if request.check:
        argv += ["--check", "--diff"]
    if limit:
        argv += ["--limit", ",".join(limit)]
    if request.tags:
        argv += ["--tags", ",".join(request.tags)]
    return [*argv, request.playbook]


def _program(name: str) -> Path:
    """A program of this project's own environment; beside this Python where there is none."""
    own = PROJECT / ".venv" / "bin" / name
    return own if own.exists() else Path(sys.executable).parent / name


def _environment(request: RunRequest, scratch: Path) -> dict[str, str]:
    return {
        **cleaned(os.environ),
        "ANSIBLE_CONFIG": "ansible/ansible.cfg",
        "ANSIBLE_HOME": str(scratch / "ansible"),
        "ANSIBLE_LOCAL_TEMP": str(scratch / "tmp"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_SSH_COMMON_ARGS": f"-F {scratch / 'ssh_config'}",
        # Connections are kept by the ssh configuration, which knows whose host an address is.
        "ANSIBLE_SSH_ARGS": "-o Compression=no",
        "AI_CLIENT_FLEET_RESULTS": str(scratch / _RESULTS),
        **request.secrets,
    }


def _open_jump_hosts(request: RunRequest, scratch: Path) -> dict[str, str]:
    """Opens one connection to each jump host before all hosts behind it ask for one at once.

    sshd drops connections that come together before they have logged in. Answers what ssh says of each jump host that
    does not let it in, by name.
    """
    dead: dict[str, str] = {}
    for name in dict.fromkeys(hop for hops in _jumps(request.ssh_config).values() for hop in hops):
        argv = ["ssh", "-F", str(scratch / "ssh_config"), name, "true"]
        # No pipes: the connection that stays open would hold their ends, and their reader would wait for it.
        quiet = subprocess.DEVNULL
        said = scratch / "jump.log"
        try:
            with said.open("w") as log:
                done = subprocess.run(
                    argv,
                    env=cleaned(os.environ),
                    stdin=quiet,
                    stdout=quiet,
                    stderr=log,
                    timeout=_JUMP_S,
                    check=False,
                )
        except subprocess.TimeoutExpired:
            dead[name] = f"no answer in {_JUMP_S} s"
        else:
            if done.returncode == _SSH_FAILED:
                lines = said.read_text(encoding="utf-8", errors="replace").split("\n")
                dead[name] = next((line.strip() for line in reversed(lines) if line.strip()), "ssh failed")
    return dead


def _jumps(ssh_config: str) -> dict[str, list[str]]:
    """The jump hosts on the way to each host, the first one first."""
    return {host: hops.split(",") for host, hops in _JUMP.findall(ssh_config)}


def named_jump_hosts(results: HostResults, ssh_config: str, *, dead: Mapping[str, str]) -> HostResults:
    """The results, where hosts behind a jump host that does not answer say so, all of them alike.

    What ssh says of such a host itself is about a connection that was closed, and different each time.
    """
    jumps = _jumps(ssh_config)

    def told(host: str, result: dict[str, Any]) -> dict[str, Any]:
        hop = next((hop for hop in jumps.get(host, ()) if hop in dead), None)
        if hop is None or not result.get("unreachable"):
            return result
        return result | {"message": f"jump host {hop} does not answer: {dead[hop]}"}

    return {host: told(host, result) for host, result in results.items()}


def _run_guarded(argv: list[str], environment: Mapping[str, str], scratch: Path) -> tuple[int, str]:
    """Runs a program that ends when this process ends, even by SIGKILL (see `supervise`)."""
    guarded = [sys.executable, "-I", "-S", str(Path(supervise.__file__)), str(scratch), *argv]
    with subprocess.Popen(
        guarded,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        cwd=PROJECT,
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


def _masked(value: Any, secrets: Collection[str]) -> Any:
    """What hosts said: secrets of the run masked (a host knows of none but its keys), and no directive in it."""
    if isinstance(value, str):
        return inert(mask_values(value, secrets))
    if isinstance(value, dict):
        return {name: _masked(inner, secrets) for name, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner, secrets) for inner in value]
    return value
