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

_ROLL_OUT = re.compile(r"roll-out: (?P<group>\S+): (?P<hosts>\d+) hosts in (?P<waves>\d+) waves?")
_FAILED_HOST = re.compile(r"^(?P<host>[a-z0-9][a-z0-9-]*): (?:failed|unreachable): ", re.MULTILINE)
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
        errors: what went wrong, as the user is told.
    """

    hosts: dict[str, tuple[int, int]] = field(default_factory=dict)
    running: dict[str, Wave] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    changes: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def heed(self, event: Mapping[str, Any]) -> list[str]:
        """Takes one event of the engine; answers the lines that it is worth."""
        said: list[str] = []
        if started := event.get("resourcePreEvent"):
            self._begin(started["metadata"])
        if ended := event.get("resOutputsEvent"):
            said += self._end(ended["metadata"], "")
        if broken := event.get("resOpFailedEvent"):
            said += self._end(broken["metadata"], "FAILED")
        if message := event.get("diagnosticEvent"):
            said += self._message(str(message["severity"]), str(message["message"]).strip())
        if summary := event.get("summaryEvent"):
            changes = summary.get("resourceChanges") or {}
            self.changes.update({kind: count for kind, count in changes.items() if kind != "same"})
        return said

    def take_results(self, results: Mapping[str, bool]) -> None:
        """Takes what hosts of running waves came to by now; whether each one failed."""
        under_way = {host for wave in self.running.values() for host in wave.hosts}
        self.done |= under_way & set(results)
        self.failed |= {host for host in under_way if results.get(host)}

    def status(self) -> str:
        """The waves that are under way, and how many hosts are done; nothing while no host is worked on."""
        if not self.running:
            return ""
        waves = ", ".join(self._named(wave) for wave in self.running.values())
        return f"{waves}: {self._counts()}"

    def _named(self, wave: Wave) -> str:
        _, waves = self.hosts.get(wave.group, (0, 0))
        return f"wave {wave.group} {wave.number}" + (f"/{waves}" if waves else "")

    def _counts(self) -> str:
        total = sum(hosts for hosts, _ in self.hosts.values())
        of_all = f" of {total}" if total else ""
        return f"{len(self.done)}{of_all} hosts done, {len(self.failed)} failed"

    def _begin(self, metadata: Mapping[str, Any]) -> None:
        wave = _wave(metadata)
        if wave and metadata["op"] in {"create", "update"}:
            self.running[_name(metadata)] = wave

    def _end(self, metadata: Mapping[str, Any], outcome: str) -> list[str]:
        name, operation = _name(metadata), str(metadata["op"])
        wave = self.running.pop(name, None) or _wave(metadata)
        if wave and (operation != "delete"):
            self.done |= set(wave.hosts)
        if operation == "same":
            return []
        line = f"{outcome or operation:8} {name}"
        return [f"{line}  ({self._named(wave)}: {self._counts()})" if wave else line]

    def _message(self, severity: str, text: str) -> list[str]:
        if severity == "error":
            self.failed |= {match["host"] for match in _FAILED_HOST.finditer(text)}
            self.errors.append(_for_people(text))
            return []
        if planned := _ROLL_OUT.match(text):
            self.hosts[planned["group"]] = (int(planned["hosts"]), int(planned["waves"]))
            return []
        return [text] if severity == "warning" and text and not text.startswith(_NOISE) else []


def _for_people(text: str) -> str:
    """The error without what only a program reads; whole where nothing else is in it."""
    lines = text.splitlines()
    words = [line for line in lines if not _SHELL_LINE.fullmatch(line) and not line.startswith(_RESULTS)]
    return "\n".join(words).strip() or text


def _name(metadata: Mapping[str, Any]) -> str:
    return str(metadata["urn"]).rsplit("::", 1)[-1]


def _wave(metadata: Mapping[str, Any]) -> Wave | None:
    """The wave that a resource is; None of another resource."""
    for state in (metadata.get("new"), metadata.get("old")):
        environment = ((state or {}).get("inputs") or {}).get("environment")
        if isinstance(environment, Mapping) and "GROUP" in environment and "HOSTS" in environment:
            number = _name(metadata).rpartition("-")[2]
            hosts = tuple(str(environment["HOSTS"]).split(","))
            return Wave(str(environment["GROUP"]), int(number) if number.isdigit() else 0, hosts)
    return None


def summary(changes: Mapping[str, int]) -> str:
    """How many resources of each kind changed, as a reader is told at the end."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(changes.items())) or "nothing changed"


def outcomes(lines: Iterable[str]) -> dict[str, bool]:
    """Whether each host of a run failed, by the first line that the run wrote of it (JSON lines)."""
    results: dict[str, bool] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the run is about to write the rest of it
        results.setdefault(str(entry.get("host")), bool(entry.get("failed") or entry.get("unreachable")))
    return results
