"""The collection away from this checkout: packed, installed in a folder, and run there by some version of Ansible."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.ansible.folder_host import KEY, TAG, artefact

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / ".venv" / "bin"


@dataclass(frozen=True)
class Elsewhere:
    """A folder outside of this checkout with the collection installed, and a host that is a folder."""

    folder: Path
    programs: Path = BIN
    """Where this version of Ansible has its programs."""

    @property
    def host(self) -> Path:
        """The root of the host's files."""
        return self.folder / "host"

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs one of Ansible's programs as a user does who has never seen this checkout's configuration."""
        environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "installed"),
            "ANSIBLE_CALLBACKS_ENABLED": "ai_client.fleet.fleet_results",
            "AI_CLIENT_FLEET_RESULTS": str(self.folder / "results.jsonl"),
            "HOLYSHEEP_API_KEY": KEY,
        }
        argv = [str(self.programs / program), *words]
        return subprocess.run(
            argv, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def play(self, *words: str) -> dict[str, Any]:
        """Runs a playbook and returns what the callback wrote of the host."""
        (self.folder / "results.jsonl").unlink(missing_ok=True)
        played = self.run("ansible-playbook", "-i", "hosts.yml", *words)
        assert played.returncode == 0, played.stdout + played.stderr
        result: dict[str, Any] = json.loads((self.folder / "results.jsonl").read_text())
        return result


def pack(out: Path) -> Path:
    """The collection as `make collection` builds it."""
    argv = [BIN / "ansible-galaxy", "collection", "build", "ansible", "--output-path", out]
    built = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    (file,) = out.glob("*.tar.gz")
    return file


def install(folder: Path, packed: Path, *, programs: Path = BIN) -> Elsewhere:
    """The collection installed, an inventory with the host `one`, and a client to install on it."""
    there = Elsewhere(folder, programs)
    installed = there.run(
        "ansible-galaxy", "collection", "install", str(packed), "-p", "installed", "--offline"
    )
    assert installed.returncode == 0, installed.stderr
    tree = artefact()
    (folder / "tree.tar.gz").write_bytes(tree)
    described = {"file": "tree.tar.gz", "sha256": hashlib.sha256(tree).hexdigest(), "glibc_min": "2.17"}
    (folder / "index.json").write_text(json.dumps({"version": "0.1.0", "trees": {TAG: described}}))
    interpreter = folder / "python"
    program = f"PYTHONPATH=ansible exec {BIN}/python -m tests.ansible.folder_interpreter {there.host}"
    interpreter.write_text(f"#!/bin/sh\ncd {ROOT} && {program}\n")
    interpreter.chmod(0o755)
    variables = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": str(interpreter),
        "ai_artefacts": str(folder),
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"one": variables}}}))
    return there
