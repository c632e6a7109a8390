"""Local hosts to deploy to in a benchmark: booted before, removed after, reached through their jump host."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import project_files
from infra.config.load import load_settings
from infra.config.schema import FleetSettings
from infra.hosts import fleet, local
from infra.hosts.model import Captured, Fleet

NAME = "bench"
GROUP = "hosts"
KEY = "hs_test_0123456789abcdef"
LINK = "198.18.14.0/30"
BOOTED_AT_ONCE = 10
# Every check of a host's state: one line a file, then what systemd says. Run there as root, it prints one digest.
_LOOK = r"""
import hashlib, os, grp, pwd, subprocess, sys
rows = []
def look(path):
    status = os.lstat(path)
    row = [path, oct(status.st_mode), pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name]
    if os.path.islink(path):
        row.append(os.readlink(path))
    elif os.path.isfile(path):
        row.append(hashlib.sha256(open(path, "rb").read()).hexdigest())
    rows.append(row)
    if os.path.isdir(path) and not os.path.islink(path) and path.startswith("/opt/ai-client/releases/"):
        for name in sorted(os.listdir(path)):
            look(path + "/" + name)
for path in sys.argv[1:]:
    look(path)
for verb in ("is-active", "is-enabled"):
    units = ["ai-client.service", "ai-client.socket", "ai-client-tcp.socket"]
    rows.append(subprocess.run(["systemctl", verb, *units], capture_output=True, text=True).stdout.split())
print(hashlib.sha256(repr(rows).encode()).hexdigest())
"""


class ToolFailedError(Exception):
    """The hosts' tool; the text is its own."""


class LookError(Exception):
    """The end state of a host is not known, so nothing can be said of what was measured on it."""


@dataclass(frozen=True, slots=True)
class Booted:
    """A fleet that runs.

    Attributes:
        settings: what it was declared with.
        fleet: its hosts.
        captured: their host keys.
    """

    settings: FleetSettings
    fleet: Fleet
    captured: Captured

    @property
    def names(self) -> list[str]:
        """Every host that is deployed to."""
        return [node.name for node in self.fleet.targets]


def declaration(hosts: int) -> dict[str, Any]:
    """The stack's structured configuration, keys without their prefix."""
    return {
        "environment": "dev",
        # The others do not watch what they changed, nor try a key.
        "gate": {"seconds": 0},
        "local": {"bridge": "10.88.0.1/24", "link": LINK, "simulator": {"port": 8000, "latencyMs": 1}},
        "jumpHosts": {"jump-bench-01": {"source": "local", "address": "10.88.0.2"}},
        "groups": {
            GROUP: {
                "source": "local",
                "hosts": {f"host-{n:03}": {"address": f"10.88.0.{n + 10}"} for n in range(1, hosts + 1)},
                "vars": {"ai_base_url": "http://10.88.0.1:8000/v1"},
            }
        },
    }


def load(declared: dict[str, Any], *, key: str = KEY) -> FleetSettings:
    """Settings by the way that the program takes."""
    values = {f"fleet:{k}": v if isinstance(v, str) else json.dumps(v) for k, v in declared.items()}
    return load_settings(
        {**values, "fleet:apiKey": key},
        secret=["fleet:apiKey"],
        stack=NAME,
        variables=project_files.role_variables(),
        models=project_files.listed_models(),
    )


@contextlib.contextmanager
def booted(hosts: int) -> Iterator[Booted]:
    """Boots that many hosts and their jump host; whatever was made is removed at the end."""
    declared = load(declaration(hosts))
    _tool("purge", {})
    try:
        control, jump = declared.local.link_ends
        _tool("network", {"bridge": declared.local.bridge, "link": {"control": control, "jump": jump}})
        with ThreadPoolExecutor(BOOTED_AT_ONCE) as pool:
            list(pool.map(_boot, local.hosts(declared)))
        _start_simulator(declared)
        yield Booted(declared, fleet.build(declared), local.captured(NAME))
    finally:
        _tool("purge", {})


def states(booted_fleet: Booted, ssh_config: Path, paths: list[str]) -> dict[str, str]:
    """A digest of each host's end state: files, rights, links, the release's tree, units."""

    def look(name: str) -> str:
        argv = ["ssh", "-F", str(ssh_config), name, "sudo", "python3", "-I", "-S", "-", *paths]
        asked = subprocess.run(argv, input=_LOOK, capture_output=True, text=True, timeout=120, check=False)
        if asked.returncode != 0:
            raise LookError(f"{name} could not be looked at: {asked.stderr.strip()[-200:]}")
        return asked.stdout.strip()

    with ThreadPoolExecutor(BOOTED_AT_ONCE) as pool:
        return dict(zip(booted_fleet.names, pool.map(look, booted_fleet.names), strict=True))


def root_of(host: str) -> Path:
    """Root folder of a host's file system."""
    return local.STATE_DIR / NAME / "hosts" / host / "root"


def _boot(host: local.LocalHost) -> None:
    _tool("host", {"name": host.name, "address": host.address, "suite": host.suite, "link": host.link})


def _start_simulator(declared: FleetSettings) -> None:
    address = str(declared.local.bridge_interface.ip)
    argv = [".venv/bin/ai-client", "simulate", "--host", address, "--port", "8000", "--latency-ms", "1"]
    ready = {"address": address, "port": 8000}
    _tool("service", {"name": "simulator", "argv": argv, "ready": ready})


def _tool(verb: str, order: dict[str, object]) -> None:
    words = [verb] if verb == "purge" else [verb, "up"]
    done = subprocess.run(
        [sys.executable, "-m", "tools.hosts", *words],
        input=json.dumps({"fleet": NAME, **order}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ToolFailedError(f"tools.hosts {' '.join(words)} {order}: {done.stderr.strip()[-500:]}")
