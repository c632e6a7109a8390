"""Two real hosts, Debian 12 and 13, the second behind the first, and the playbooks run on them by hand."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from tests.tools.hosts_control import ROOT, Control

HOSTS = {"h1": "bookworm", "h2": "trixie"}
UPSTREAM = "http://10.88.0.1:8000/v1"
RUN_TIMEOUT_S = 240
BUILD_TIMEOUT_S = 900
VENV = ROOT / ".venv" / "bin"


@dataclass(frozen=True)
class Fleet:
    """The hosts, and a folder for what the control side needs."""

    control: Control
    folder: Path
    artefact: Path
    hosts: Mapping[str, str] = field(default_factory=lambda: HOSTS)

    def raise_all(self) -> None:
        """Boots the hosts and the provider simulator, and pins the hosts' keys."""
        self.control.ask("network", "up", order=self.control.network_order)
        link = f"{self.control.jump_address}/30"
        for octet, (name, suite) in enumerate(self.hosts.items(), start=11):
            order = {"name": name, "address": f"10.88.0.{octet}/24", "suite": suite}
            self.control.ask("host", "up", order={**order, **({"link": link} if name == "h1" else {})})
        simulate = [".venv/bin/ai-client", "simulate", "--host", "10.88.0.1", "--port", "8000"]
        ready = {"address": "10.88.0.1", "port": 8000}
        self.control.ask("service", "up", order={"name": "simulator", "argv": simulate, "ready": ready})
        self._write_ssh_config()

    def _write_ssh_config(self) -> None:
        hosts: Any = self.control.ask("status")["hosts"]
        known = "".join(f"{name} {key}\n" for name, host in hosts.items() for key in host["host_keys"])
        (self.folder / "known_hosts").write_text(known)
        lines = [
            f"Host *\n User deploy\n IdentityFile {self.control.places.identity}\n IdentitiesOnly yes",
            f" BatchMode yes\n ConnectTimeout 10\n UserKnownHostsFile {self.folder / 'known_hosts'}",
            f"Host h1\n HostName {self.control.jump_address}\n HostKeyAlias h1",
            "Host h2\n HostName 10.88.0.12\n HostKeyAlias h2\n ProxyJump h1",
            "Host gone\n HostName 10.88.0.99\n HostKeyAlias h2\n ProxyJump h1",
        ]
        (self.folder / "ssh_config").write_text("\n".join(lines) + "\n")

    def close_connections(self) -> None:
        """Ends the ssh connections that Ansible keeps."""
        for socket in (self.folder / "cp").glob("*"):
            subprocess.run(
                ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "x"], capture_output=True, check=False
            )

    def ssh(self, host: str, command: str, *, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Runs a command on a host as its login."""
        argv = ["ssh", "-F", str(self.folder / "ssh_config"), host, command]
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=RUN_TIMEOUT_S, check=False)

    def on(self, host: str, command: str) -> str:
        """Runs a command on a host as root, which must succeed."""
        done = self.ssh(host, f"sudo sh -c {_quoted(command)}")
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout.decode().strip()

    def play(
        self, playbook: str, *options: str, key: str, variables: Mapping[str, Any] | None = None
    ) -> Played:
        """Runs one of the playbooks by hand, with the key in the environment."""
        hosts: dict[str, Any] = dict.fromkeys(self.hosts)
        given = {
            "ai_base_url": UPSTREAM,
            "ai_artefacts": str(self.artefact),
            "ai_claim": "fleet/test/{{ inventory_hostname }}",
            "ai_claim_owner": "fleet/test",
            # How a change is watched has tests of its own.
            "ai_gate_seconds": 0,
            **(variables or {}),
        }
        inventory = self.folder / "inventory.yml"
        inventory.write_text(yaml.safe_dump({"all": {"vars": given, "hosts": hosts}}))
        results = self.folder / "results.jsonl"
        results.unlink(missing_ok=True)
        argv = [
            str(VENV / "ansible-playbook"),
            "-i",
            str(inventory),
            f"ansible/ai-client-{playbook}.yml",
            *options,
        ]
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
            cwd=ROOT,
            env=self.environment(key),
        )
        lines = results.read_text().splitlines() if results.exists() else []
        by_host = {line["host"]: line for line in map(json.loads, lines)}
        return Played(done.returncode, done.stdout + done.stderr, by_host)

    def environment(self, key: str) -> dict[str, str]:
        """What a user sets before calling ansible-playbook."""
        return {
            "PATH": f"{VENV}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "ANSIBLE_CONFIG": "ansible/ansible.cfg",
            "ANSIBLE_SSH_COMMON_ARGS": f"-F {self.folder / 'ssh_config'}",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "cp"),
            "ANSIBLE_NOCOLOR": "1",
            "AI_CLIENT_FLEET_RESULTS": str(self.folder / "results.jsonl"),
            "HOLYSHEEP_API_KEY": key,
        }


@dataclass(frozen=True)
class Played:
    """How a playbook run ended: `results` has what the callback wrote, by host."""

    status: int
    output: str
    results: dict[str, dict[str, Any]]

    @property
    def changed(self) -> dict[str, bool]:
        """Which hosts changed."""
        return {host: result["changed"] for host, result in sorted(self.results.items())}


def built_artefact(*options: str) -> Path:
    """The client as hosts install it, built from this checkout."""
    argv = ["tools/artefact/build", *options]
    built = subprocess.run(
        argv, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False, cwd=ROOT
    )
    assert built.returncode == 0, built.stderr
    return Path(built.stdout.splitlines()[-1])


@contextmanager
def raised(control: Control, artefact: Path, hosts: Mapping[str, str]) -> Iterator[Fleet]:
    """The hosts, up; who made the fleet takes them down."""
    # Sockets of kept connections have no room for a long path.
    with TemporaryDirectory(prefix="acf-") as folder:
        fleet = Fleet(control, Path(folder), artefact, hosts)
        try:
            fleet.raise_all()
            yield fleet
        finally:
            fleet.close_connections()


def _quoted(command: str) -> str:
    return "'" + command.replace("'", "'\\''") + "'"


def repacked(artefact: Path, out: Path, *, version: str, appended: Mapping[str, str]) -> Path:
    """Another release: the same trees with text appended to some files."""
    index = json.loads((artefact / "index.json").read_text())
    out.mkdir()
    for tag, tree in index["trees"].items():
        content = gzip.decompress((artefact / tree["file"]).read_bytes())
        packed = gzip.compress(_appended(content, appended), 1, mtime=0)
        (out / f"{tag}.tar.gz").write_bytes(packed)
        tree.update(file=f"{tag}.tar.gz", sha256=hashlib.sha256(packed).hexdigest(), size=len(packed))
    (out / "index.json").write_text(json.dumps({**index, "version": version}))
    return out


def _appended(content: bytes, appended: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        for member in old:
            file = old.extractfile(member)
            data = file.read() if file else b""
            if member.name in appended:
                data += appended[member.name].encode()
                member.size = len(data)
            new.addfile(member, io.BytesIO(data) if file else None)
    return buffer.getvalue()
