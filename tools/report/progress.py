"""How far a run of the engine has come, from its events: hosts done, the wave that is under way, failures.

Nothing here prints or waits. `heed` takes an event and answers what is to be said for good; `status` is the line that
says how things stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pulumi.automation import OpType
from pulumi.automation.events import EngineEvent, StepEventMetadata

from tools.report import failures

_ROLL_OUT = re.compile(r"roll-out: (?P<group>\S+): (?P<hosts>\d+) hosts? in (?P<waves>\d+) waves?")
_FAILED_HOSTS = re.compile(
    r"^(?P<hosts>[a-z0-9][a-z0-9-]*(?:, [a-z0-9][a-z0-9-]*)*): (?:failed|unreachable): ", re.MULTILINE
)
# Follows every error, and says nothing more.
_ENDED = re.compile(
    r"(?:error: )?(?:(?:update|preview|destroy) failed"
    r"|an unhandled error occurred: program exited with non-zero exit code: \d+)"
)
_STACK = "pulumi:pulumi:Stack"
_NOISE = "using pulumi-resource-"
# What stands around the words of a failed run: the shell line that started it, and its results for programs.
_SHELL_LINE = re.compile(r'(?:error: )?exit status \d+: running "exec env -i .*":')
_RESULTS = '{"hosts": '


@dataclass(frozen=True, slots=True)
class Wave:
    """One run over some hosts of a group; its number is its place in the group, from 1."""

    group: str
    number: int
    hosts: tuple[str, ...]


@dataclass(slots=True)
class Progress:
    """What the events have told so far.

    Attributes:
        hosts: how many hosts each group's roll-out reaches, and in how many waves, by group.
        running: waves that are under way, by the name of their resource.
        done: hosts that are done, well or not.
        failed: hosts that failed or were not reached.
        changes: how many resources were created, updated and so on.
        errors: what went wrong, as the user is told, but for hosts.
        warnings: what the user was warned of; an error that says the same is not told again.
        results: what each host of a failed run came to.
        pending: what is done to resources that are no waves, by their name.
        phase: what is done before the first resource.
        ended: URN and operation of what has ended. A component ends twice: when it is made, and with its outputs.
    """

    hosts: dict[str, tuple[int, int]] = field(default_factory=dict)
    running: dict[str, Wave] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    changes: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    phase: str = "looking at the hosts"
    ended: set[tuple[str, str]] = field(default_factory=set)

    def heed(self, event: EngineEvent) -> list[str]:
        """Takes one event of the engine; answers the lines that it is worth."""
        said: list[str] = []
        if event.resource_pre_event is not None:
            self._begin(event.resource_pre_event.metadata)
        if event.res_outputs_event is not None:
            said += self._end(event.res_outputs_event.metadata, "")
        if event.res_op_failed_event is not None:
            said += self._end(event.res_op_failed_event.metadata, "FAILED")
        if event.diagnostic_event is not None:
            said += self._message(event.diagnostic_event.severity, event.diagnostic_event.message.strip())
        if event.summary_event is not None:
            changes = event.summary_event.resource_changes or {}
            self.changes.update({str(kind): count for kind, count in changes.items() if kind != "same"})
        return said

    def take_results(self, results: Mapping[str, bool]) -> None:
        """Takes what hosts of running waves came to by now; whether each one failed."""
        under_way = {host for wave in self.running.values() for host in wave.hosts}
        self.done |= under_way & set(results)
        self.failed |= {host for host in under_way if results.get(host)}

    def told(self) -> list[str]:
        """What went wrong: a line for each cause on hosts, then everything else."""
        return [*failures.lines(self.results), *self.errors]

    def status(self) -> str:
        """How many hosts are done, then the waves and hosts under way: what matters most is within 80 columns.

        Without a wave: other resources, or the phase.
        """
        if not self.running:
            return ", ".join(f"{operation} {name}" for name, operation in self.pending.items()) or self.phase
        waves = ", ".join(self._named(wave) for wave in self.running.values())
        left = [host for wave in self.running.values() for host in wave.hosts if host not in self.done]
        return f"{self._counts()}; {waves}" + (f": {', '.join(left)}" if left else "")

    def _named(self, wave: Wave) -> str:
        _, waves = self.hosts.get(wave.group, (0, 0))
        return f"wave {wave.group} {wave.number}" + (f"/{waves}" if waves else "")

    def _counts(self) -> str:
        total = sum(hosts for hosts, _ in self.hosts.values())
        of_all = f" of {total}" if total else ""
        return f"{len(self.done)}{of_all} hosts done, {len(self.failed)} failed"

    def _begin(self, step: StepEventMetadata) -> None:
        wave, name = _wave(step), _name(step)
        if wave and step.op in {OpType.CREATE, OpType.UPDATE}:
            self.running[name] = wave
        elif step.op is not OpType.SAME and step.type != _STACK and not _is_component(step):
            self.pending[name] = step.op.value
        if step.type != _STACK:
            self.phase = ""

    def _end(self, step: StepEventMetadata, outcome: str) -> list[str]:
        name, operation = _name(step), step.op.value
        self.pending.pop(name, None)
        wave = self.running.pop(name, None) or _wave(step)
        if wave and (operation != "delete"):
            self.done |= set(wave.hosts)
        # A URN that is deleted twice is of two resources: a replacement left one behind.
        is_told = (step.urn, operation) in self.ended and operation != "delete"
        self.ended.add((step.urn, operation))
        if operation == "same" or step.type == _STACK or is_told:
            return []
        line = f"{outcome or operation:8} {name}"
        # A wave that is deleted is none of the waves of this run: its group has fewer by now.
        return [
            f"{line}  ({self._named(wave)}: {self._counts()})" if wave and operation != "delete" else line
        ]

    def _message(self, severity: str, text: str) -> list[str]:
        if severity == "error":
            self.failed |= {
                host for match in _FAILED_HOSTS.finditer(text) for host in match["hosts"].split(", ")
            }
            self.results |= _results(text)
            said = _for_people(text)
            if said and said not in self.errors and not any(said in warned for warned in self.warnings):
                self.errors.append(said)
            return []
        if planned := _ROLL_OUT.match(text):
            self.hosts[planned["group"]] = (int(planned["hosts"]), int(planned["waves"]))
            return []
        if severity != "warning" or not text or text.startswith(_NOISE) or text in self.warnings:
            return []
        self.warnings.append(text)
        return [text]


def _for_people(text: str) -> str:
    """The error without what only a program reads, and without hosts whose results say it; else whole."""
    lines = text.splitlines()
    words = [line for line in lines if not _SHELL_LINE.fullmatch(line) and not line.startswith(_RESULTS)]
    if _results(text):
        return "\n".join(line for line in words if not _FAILED_HOSTS.match(line)).strip()
    return "\n".join(line for line in words if not _ENDED.fullmatch(line)).strip() if words else text


def _results(text: str) -> dict[str, dict[str, Any]]:
    """Each host's result, where a run's results are in an error's text."""
    for line in text.splitlines():
        if line.startswith(_RESULTS):
            try:
                found = json.loads(line)["hosts"]
            except ValueError:
                return {}  # cut off
            return {str(host): dict(result) for host, result in found.items()}
    return {}


def _name(step: StepEventMetadata) -> str:
    return step.urn.rsplit("::", 1)[-1]


def _is_component(step: StepEventMetadata) -> bool:
    """Whether it only groups other resources: under way from the first of them to the last, it says nothing."""
    state = step.new or step.old
    return state is not None and not state.custom


def _wave(step: StepEventMetadata) -> Wave | None:
    """The wave that a resource is; None of another resource."""
    for state in (step.new, step.old):
        environment = None if state is None else (state.inputs or {}).get("environment")
        if isinstance(environment, Mapping) and "GROUP" in environment and "HOSTS" in environment:
            number = _name(step).rpartition("-")[2]
            hosts = tuple(str(environment["HOSTS"]).split(","))
            return Wave(str(environment["GROUP"]), int(number) if number.isdigit() else 0, hosts)
    return None


def summary(changes: Mapping[str, int]) -> str:
    """How many resources of each kind changed, as a reader is told at the end."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(changes.items())) or "nothing changed"


def outcomes(lines: Iterable[str]) -> dict[str, bool]:
    """Whether each host of a run failed, by the first line that the run wrote of it (JSON lines).

    The last one counts where a task of the group's own failed after a deploy that went well.
    """
    results: dict[str, bool] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the run is about to write the rest of it
        is_bad = bool(entry.get("failed") or entry.get("unreachable"))
        results.setdefault(str(entry.get("host")), is_bad)
        if entry.get("own_task"):
            results[str(entry.get("host"))] = is_bad
    return results
