"""Copies of this project that work on one stack, as several people's clones do."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.infra.stacks import PROJECT

PASSPHRASE = "tests-only"


@dataclass
class Run:
    """How a command ended, with everything it printed."""

    status: int
    output: str

    def json_lines(self) -> list[dict[str, Any]]:
        """Events of the engine."""
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]

    def changed(self) -> dict[str, str]:
        """Operation on each resource that was not left as it is."""
        events = [
            event["resourcePreEvent"]["metadata"]
            for event in self.json_lines()
            if "resourcePreEvent" in event
        ]
        return {e["urn"].rsplit("::", 1)[1]: e["op"] for e in events if e["op"] != "same"}

    def errors(self) -> str:
        """What went wrong, as the user sees it; everything that was printed where that was no stream of events."""
        events = [e["diagnosticEvent"] for e in self.json_lines() if "diagnosticEvent" in e]
        return "\n".join(e["message"] for e in events if e["severity"] == "error") or self.output[-6000:]

    def messages(self) -> str:
        """Everything that was said to the user."""
        events = [
            event["diagnosticEvent"]["message"] for event in self.json_lines() if "diagnosticEvent" in event
        ]
        return "\n".join(events)


@dataclass
class Clone:
    """One checkout of the project, with a state backend that clones may share.

    Attributes:
        folder: where the project lies.
        state: folder of the state backend.
        stack: stack that this clone works on.
        outputs: everything that its commands have printed so far.
    """

    folder: Path
    state: Path
    stack: str
    outputs: list[str] = field(default_factory=list)

    @property
    def scratch(self) -> Path:
        """Where programs of this stack put their temporary files."""
        folder = self.state.parent / "tmp"
        folder.mkdir(exist_ok=True)
        return folder

    def pulumi(
        self, *words: str, stdin: str | None = None, expect: int | None = 0, timeout_s: float = 600
    ) -> Run:
        """Runs the engine in this clone."""
        return self.run(
            "pulumi", *words, "--non-interactive", stdin=stdin, expect=expect, timeout_s=timeout_s
        )

    def up(self, *words: str, expect: int | None = 0) -> Run:
        """`pulumi up` without a preview before it."""
        return self.pulumi("up", "--yes", "--skip-preview", "--json", *words, expect=expect)

    def preview(self, *words: str) -> Run:
        """`pulumi preview` as a stream of events."""
        return self.run(
            "env",
            "PULUMI_ENABLE_STREAMING_JSON_PREVIEW=1",
            "pulumi",
            "preview",
            "--json",
            *words,
            "--non-interactive",
        )

    def planned(self) -> dict[str, Any]:
        """Outputs as a preview foretells them."""
        events = [
            e["resOutputsEvent"]["metadata"] for e in self.preview().json_lines() if "resOutputsEvent" in e
        ]
        # The root resource comes first with the outputs that it had, and last with those that it will have.
        root = [event for event in events if event["type"] == "pulumi:pulumi:Stack"][-1]
        return dict(root["new"]["outputs"])

    def run(
        self, *argv: str, stdin: str | None = None, expect: int | None = 0, timeout_s: float = 600
    ) -> Run:
        """Runs a command in this clone, and keeps what it printed."""
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=self.environment(),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
        self.outputs.append(done.stdout)
        run = Run(done.returncode, done.stdout)
        assert expect in (None, run.status), f"{argv} ended with {run.status}:\n{run.errors()}"
        return run

    def environment(self) -> dict[str, str]:
        """The caller's environment, which has the engine on its PATH, with this clone's tools before it."""
        return {
            **os.environ,
            "PATH": f"{self.folder}/.venv/bin:{os.environ['PATH']}",
            # The virtual environment is shared, and leads to the checkout that it was made in.
            "PYTHONPATH": f"{self.folder}:{self.folder}/ansible",
            "PULUMI_BACKEND_URL": f"file://{self.state}",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "AI_CLIENT_FLEET_STACK": self.stack,
            "TMPDIR": str(self.scratch),
        }

    def output(self, name: str) -> Any:
        """One of the stack's outputs."""
        return json.loads(self.pulumi("stack", "output", name, "--json").output)

    def ssh(self, host: str, command: str, *, expect: int | None = 0) -> Run:
        """Runs a command on a host, by the ssh configuration that the dynamic inventory lays down."""
        return self.run("ssh", "-F", self.ssh_config(), host, command, expect=expect, timeout_s=120)

    def ssh_config(self) -> str:
        """Path of that ssh configuration."""
        listed = json.loads(self.run("ansible/inventory/fleet.py", "--list").output)
        variables = next(iter(listed["_meta"]["hostvars"].values()))
        return str(variables["ansible_ssh_common_args"].split()[1])

    def configure(self, config: dict[str, Any]) -> None:
        """Writes the stack's file; secrets set before stay in it."""
        path = self.folder / f"Pulumi.{self.stack}.yaml"
        content = yaml.safe_load(path.read_text()) if path.exists() else {}
        kept = {
            k: v for k, v in (content.get("config") or {}).items() if isinstance(v, dict) and "secure" in v
        }
        content["config"] = {f"fleet:{key}": value for key, value in config.items()} | kept
        path.write_text(yaml.safe_dump(content, sort_keys=False))


def another(first: Clone, folder: Path) -> Clone:
    """A second checkout of the same revision, of somebody else who works on the same stack."""
    shutil.copytree(first.folder, folder, symlinks=True)
    second = Clone(folder, first.state, first.stack)
    second.pulumi("stack", "select", first.stack)
    return second


def clone(folder: Path, *, state: Path, stack: str) -> Clone:
    """A copy of the working tree, sharing the virtual environment, as `git clone` and `tools/setup` would give."""
    made = empty_clone(folder, state=state, stack=stack)
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return made


def empty_clone(folder: Path, *, state: Path, stack: str) -> Clone:
    """A copy of the working tree and nothing else, as `git clone` alone would give."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        source = PROJECT / name
        # The environment is shared; where it is itself a link, git does not know it for the folder that it ignores.
        if name != ".venv" and (source.is_file() or source.is_symlink()):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    state.mkdir(exist_ok=True)
    return Clone(folder, state, stack)
