"""The contenders of the deploy benchmark. Each brings all hosts to one variant of the declared state, or raises."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from infra.config.schema import FleetSettings
from infra.playbook import requests, runner, ssh
from infra.playbook.request import RunRequest
from tests.bench import deploy_ansible
from tests.bench.deploy_fleet import GROUP, Booted
from tests.bench.deploy_work import Work

_TIMEOUT_S = 3600


class DeployFailedError(Exception):
    """A side did not bring every host to the declared state, so its time means nothing."""


class Side(Protocol):
    """One way to deploy."""

    name: str
    keeps_connections: bool

    def deploy(self, variant: str) -> None:
        """Brings every host to a variant."""

    def disconnect(self) -> None:
        """Ends connections that are kept from run to run."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How the peers reach the hosts: by the same ssh configuration, inventory and pinned keys as this project."""

    ssh_config: Path
    kept_config: Path
    known_hosts: Path
    inventory: Path
    control: Path
    settings: Path


def reach(booted: Booted, folder: Path, claims: Mapping[str, str]) -> Reach:
    """Writes what the peers read."""
    nodes = (*booted.fleet.jump_hosts, *booted.fleet.targets)
    known = ssh.known_hosts_text(nodes, booted.captured)
    # A client that does not read HostKeyAlias looks a host up by its address.
    by_address = "".join(
        line.replace(f"{node.name} ", f"{node.address},[{node.address}]:22 ", 1) + "\n"
        for node in nodes
        for line in known.splitlines()
        if line.startswith(f"{node.name} ")
    )
    names = ("ssh_config", "kept_config", "known_hosts", "inventory.json", "cp", "ansible.cfg")
    made = Reach(*(folder / name for name in names))
    made.known_hosts.write_text(known + by_address, encoding="utf-8")
    outgoing = requests.outgoing(booted.settings)
    config = ssh.config_text(nodes, outgoing, known_hosts=str(made.known_hosts))
    made.ssh_config.write_text(config, encoding="utf-8")
    # Those who use OpenSSH share the connection to the jump host, as this project does.
    made.control.mkdir()
    made.settings.touch()
    made.kept_config.write_text(ssh.with_kept_connections(config, known, str(made.control)), encoding="utf-8")
    python = {"ansible_python_interpreter": "/usr/bin/python3"}
    hosts = {
        node.name: {"ansible_host": node.address, "bench_claim": claims[node.name], **python}
        for node in booted.fleet.targets
    }
    made.inventory.write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    return made


def order_for(booted: Booted, declared: FleetSettings) -> RunRequest:
    """This project's order for a variant on all hosts."""
    nodes = booted.fleet.targets
    return requests.deploy(
        declared, booted.fleet, booted.captured, group=GROUP, nodes=nodes, tries_keys=False
    )


class ThisProject:
    """The playbook with its action plugin, run as a roll-out runs it."""

    name = "this project"
    keeps_connections = True

    def __init__(self, variants: Mapping[str, RunRequest]) -> None:
        self._orders = variants

    def deploy(self, variant: str) -> None:
        run_order(self._orders[variant])

    def disconnect(self) -> None:
        folder = str(ssh.connections_folder())
        for order in self._orders.values():
            config = ssh.with_kept_connections(order.ssh_config, order.known_hosts, folder)
            end_kept(config)

    def wipe(self) -> None:
        """Puts every host back to what it was before any deploy, whoever deployed it."""
        first = next(iter(self._orders.values()))
        run_order(replace(first, playbook=requests.DECOMMISSION, secrets={}, with_artefact=False))


class PlainAnsible:
    """Ansible's own modules with 50 forks, pipelining and no facts."""

    name = "tuned Ansible"
    keeps_connections = True

    def __init__(self, works: Mapping[str, Work], reached: Reach, folder: Path) -> None:
        self._reached = reached
        self._plays = {name: folder / f"play-{name}.json" for name in works}
        for name, path in self._plays.items():
            path.write_text(json.dumps(deploy_ansible.play(works[name])), encoding="utf-8")

    def deploy(self, variant: str) -> None:
        open_jump_hosts(self._reached)
        must(
            [_program("ansible-playbook"), "-i", str(self._reached.inventory), str(self._plays[variant])],
            ansible_environment(self._reached),
        )

    def disconnect(self) -> None:
        disconnect(self._reached)


class Pyinfra:
    """pyinfra, from the bench venv."""

    name = "pyinfra"
    keeps_connections = False

    def __init__(self, works: Mapping[str, Work], reached: Reach, *, folder: Path, program: Path) -> None:
        self._program = program
        self._inventory = folder / "pyinfra_inventory.py"
        names = list(next(iter(works.values())).claims)
        data = {
            "ssh_config_file": str(reached.ssh_config),
            "ssh_known_hosts_file": str(reached.known_hosts),
            "ssh_strict_host_key_checking": "yes",
        }
        self._inventory.write_text(f"hosts = ({names!r}, {data!r})\n", encoding="utf-8")
        self._works = {name: folder / f"work-{name}.json" for name in works}
        for name, path in self._works.items():
            path.write_text(json.dumps(works[name].as_data()), encoding="utf-8")

    def deploy(self, variant: str) -> None:
        deploy = Path(__file__).with_name("deploy_pyinfra.py")
        argv = [str(self._program), "--yes", "--sudo", str(self._inventory), str(deploy)]
        must(argv, {**os.environ, "BENCH_WORK": str(self._works[variant])})

    def disconnect(self) -> None:
        """pyinfra keeps no connection from run to run."""


def floor(reached: Reach) -> None:
    """What nobody who uses OpenSSH can be faster than: one command that does nothing, on every host."""
    open_jump_hosts(reached)
    must(
        [_program("ansible"), "all", "-i", str(reached.inventory), "-m", "raw", "-a", "true"],
        ansible_environment(reached),
    )


def run_order(order: RunRequest, *, limit: tuple[str, ...] = ()) -> None:
    """Runs an order; every host must have succeeded."""
    results, tail = runner.execute(order, run="bench", limit=limit)
    wrong = {host: r["message"] for host, r in results.items() if r["failed"] or r["unreachable"]}
    if wrong or len(results) != len(limit or order.hosts()):
        raise DeployFailedError(f"{order.playbook}: {wrong}\n{tail}")


def ansible_environment(reached: Reach) -> dict[str, str]:
    """Settings of tuned Ansible; ssh's are those of this project."""
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(reached.settings),
        "ANSIBLE_FORKS": "50",
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_GATHERING": "explicit",
        "ANSIBLE_TIMEOUT": "30",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_SSH_COMMON_ARGS": f"-F {reached.kept_config}",
        "ANSIBLE_SSH_ARGS": "-o Compression=no",
    }


def disconnect(reached: Reach) -> None:
    """Ends the connections that peers have kept."""
    end_kept(reached.kept_config.read_text(encoding="utf-8"))


def end_kept(config: str) -> None:
    """Ends the ssh connections that a configuration keeps, and no other's; those of jump hosts last."""
    for socket in reversed(re.findall(r"^  ControlPath (.+)$", config, flags=re.MULTILINE)):
        if Path(socket).exists():
            argv = ["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "kept"]
            subprocess.run(argv, capture_output=True, timeout=30, check=False)


def open_jump_hosts(reached: Reach) -> None:
    """Opens the shared connection before all hosts ask for it at once."""
    config = reached.kept_config.read_text(encoding="utf-8")
    for name in dict.fromkeys(re.findall(r"^  ProxyJump (.+)$", config, flags=re.MULTILINE)):
        must(["ssh", "-F", str(reached.kept_config), name, "true"], os.environ)


def must(argv: list[str], environment: Mapping[str, str]) -> None:
    """Runs a program that has to succeed."""
    done = subprocess.run(
        argv,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        said = [line for line in done.stdout.splitlines() if line.strip()]
        wrong = [line for line in said if "rror" in line or "ailed" in line]
        told = "\n".join([*wrong[:20], "…", *said[-20:]])
        raise DeployFailedError(f"{argv[0]} ended with {done.returncode}:\n{told[-6000:]}")


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)
