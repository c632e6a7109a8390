"""Runs one local.Command through the real engine, step by step, and records what came of each step."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parent / "case_program"
COMMAND_TYPE = "command:local:Command"
SPECIAL_KEY = "4dabf18193072939515e22adb298388d"
RECORDED_OUTPUTS = frozenset(
    ["stdout", "stderr", "environment", "stdin", "create", "triggers", "assets", "archive", "logging"]
)
LONG_TEXT_CHARS = 200
STEP_TIMEOUT_S = 90
# Lines that name the plugin or a time, not what a command did.
UNRECORDED_LINE = re.compile(
    r"using pulumi-resource-command|Duration|warning: using|^Updating|^Previewing|stand-in"
)

Step = dict[str, Any] | None
Record = dict[str, Any]


@dataclass(frozen=True)
class Workspace:
    """A stack of its own below `folder`, whose program declares the command of one case."""

    folder: Path
    environ: dict[str, str]

    @property
    def log(self) -> Path:
        """Where the commands of the cases write what they saw."""
        return self.folder / "log"

    def declare(self, step: Step) -> None:
        """Makes the program declare this command, or none."""
        text = json.dumps(step).replace('"WORK"', json.dumps(str(self.folder)))
        (self.folder / "case.json").write_text(text)
        self.log.write_text("")

    def pulumi(self, *arguments: str, timeout_s: float = STEP_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """Runs the engine here."""
        return subprocess.run(
            ["pulumi", *arguments, "--non-interactive"],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )

    def up(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Makes it so, without a preview, and gives the engine's events."""
        return self.pulumi("up", "--yes", "--skip-preview", "--json", *options)

    def resources(self) -> list[dict[str, Any]]:
        """What state holds, secrets encrypted."""
        [state] = self.folder.glob("state/.pulumi/stacks/cases/s.json")
        resources: list[dict[str, Any]] = json.loads(state.read_text())["checkpoint"]["latest"].get(
            "resources"
        )
        return resources or []


def open_workspace(folder: Path, *, path: str, template: Path | None = None) -> Workspace:
    """A workspace with an empty stack `s`; a template that has one already saves an engine run."""
    environ = {
        **{k: v for k, v in os.environ.items() if k != "V" and not k.startswith("PULUMI_")},
        "PATH": path,
        "PULUMI_BACKEND_URL": f"file://{folder}/state",
        "PULUMI_HOME": f"{folder}/home",
        "PULUMI_STACK": "s",
        "PULUMI_CONFIG_PASSPHRASE": "x",
        "PULUMI_SKIP_UPDATE_CHECK": "1",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
        "LOG": f"{folder}/log",
        "OUTER": "outer",
    }
    workspace = Workspace(folder=folder, environ=environ)
    if template is not None:
        shutil.copytree(template, folder)
        return workspace
    shutil.copytree(PROGRAM, folder)
    (folder / "state").mkdir()
    workspace.pulumi("stack", "init", "s").check_returncode()
    return workspace


def record_case(workspace: Workspace, steps: Iterable[Step]) -> list[Record]:
    """What came of each step, in the shape of the recorded cases."""
    records: list[Record] = []
    for step in steps:
        workspace.declare(step)
        try:
            done = workspace.up()
        except subprocess.TimeoutExpired:
            return [*records, {"step": step, "timed_out": True}]
        records.append(
            {
                "step": step,
                "exit": done.returncode,
                "ops": list(operations(done.stdout)),
                "ran": _clean(workspace.log.read_text(errors="replace"), folder=workspace.folder),
                "diagnostics": list(diagnostics(done.stdout, folder=workspace.folder)),
                "outputs": _outputs(workspace),
            }
        )
    return records


def operations(events: str) -> Iterator[str]:
    """The engine's operations on commands, in order."""
    for event in _parsed(events):
        metadata = event.get("resourcePreEvent", {}).get("metadata", {})
        if metadata.get("type") == COMMAND_TYPE:
            yield metadata["op"]


def diagnostics(events: str, *, folder: Path) -> Iterator[str]:
    """What the user saw beside the command."""
    for event in _parsed(events):
        diagnostic = event.get("diagnosticEvent", {})
        if diagnostic.get("urn", "").endswith("::c"):
            for line in _clean(diagnostic["message"], folder=folder):
                yield f"{diagnostic['severity']}: {line}"


def _parsed(events: str) -> Iterator[dict[str, Any]]:
    for line in events.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def _clean(text: str, *, folder: Path) -> list[str]:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).replace(str(folder), "WORK")
    lines = [line.strip() for line in plain.splitlines()]
    return [line for line in lines if line and not UNRECORDED_LINE.search(line)]


def _outputs(workspace: Workspace) -> dict[str, Any] | None:
    outputs: dict[str, Any] | None = None
    for resource in workspace.resources():
        if resource["type"] == COMMAND_TYPE:
            kept = {k: v for k, v in resource.get("outputs", {}).items() if k in RECORDED_OUTPUTS}
            outputs = {key: _marked(value, folder=workspace.folder) for key, value in kept.items()}
    if outputs and "assets" in outputs:
        outputs["assets"] = sorted(outputs["assets"])
    if outputs and "archive" in outputs:
        outputs["archive"] = "present"
    return outputs


def _marked(value: Any, *, folder: Path) -> Any:
    """The value with what differs from run to run, or is too long, named instead of shown."""
    if isinstance(value, dict) and value.get(SPECIAL_KEY):
        return "secret" if value.keys() & {"ciphertext", "plaintext"} else "special"
    if isinstance(value, dict):
        return {key: _marked(inner, folder=folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [_marked(inner, folder=folder) for inner in value]
    if isinstance(value, str):
        return (
            f"{len(value)} characters" if len(value) > LONG_TEXT_CHARS else value.replace(str(folder), "WORK")
        )
    return value
