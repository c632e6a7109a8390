"""What readers of a plan are told of a host's state, and in which order hosts deserve their attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from infra.report.model import Cause, Change, HostPlan, Plan, ResourceChange


class Label(NamedTuple):
    """How a state is shown: its rank (most urgent first), a sign, a word, and how many hosts are said to be so."""

    rank: int
    sign: str
    word: str
    counted: str


_FAILED = Label(0, "❗", "could not be read", "could not be read")
_UNREACHABLE = Label(1, "🔌", "unreachable", "unreachable")
_REMOVED = Label(2, "🗑️", "to decommission", "to decommission")
_DRIFT = Label(3, "⚠️", "drift", "drifted")
_CHANGES = Label(4, "✏️", "changes", "to change")
_BLOCKED = Label(5, "⛔", "blocked", "blocked")
_ABSENT = Label(6, "🆕", "to create", "to create")
_CORDONED = Label(7, "🚧", "cordoned", "cordoned")
_AWAY = Label(8, "💤", "away", "away")
_UNSEEN = Label(9, "❔", "not probed", "not probed")
SAME = Label(10, "✅", "as declared", "as declared")

_LABELS = {
    "failed": _FAILED,
    "unreachable": _UNREACHABLE,
    "removed": _REMOVED,
    "differs": _CHANGES,
    "blocked": _BLOCKED,
    "absent": _ABSENT,
    "away": _AWAY,
    "cordoned": _CORDONED,
    "unseen": _UNSEEN,
    "same": SAME,
}


def label(host: HostPlan) -> Label:
    """How a host's state is shown."""
    if host.state == "differs" and host.cause is Cause.DRIFT:
        return _DRIFT
    return _LABELS.get(host.state, _UNSEEN)


def reason(host: HostPlan) -> str:
    """Why `up` changes the host, and where its plan is from if not from the host."""
    by_state = "planned from what was last applied" if host.changes and host.state in _SILENT else ""
    return "; ".join(filter(None, [_cause(host), by_state]))


_SILENT = frozenset({"failed", "unreachable", "unseen"})


def _cause(host: HostPlan) -> str:
    if host.cause is Cause.DECLARED:
        by_hand = "; also changed on the host" if host.is_partly_drift else ""
        return f"declared: {', '.join(host.visible_inputs)}{by_hand}"
    if host.cause is Cause.DRIFT:
        return "changed on the host" + (
            f"; also declared: {', '.join(host.visible_inputs)}" if host.visible_inputs else ""
        )
    if host.state == "removed":
        return "no longer declared"
    return str(host.cause)


def diff_text(change: Change, *, host: HostPlan) -> str:
    """A change's difference; where only some changes of the host are drift, the head of those that are says so."""
    text = change.diff.rstrip("\n") or f"{change.path}: differs"
    if not (change.is_drift and host.is_partly_drift):
        return text
    head, *rest = text.split("\n")
    return "\n".join([f"{head} (drift)", *rest])


def counted_changes(host: HostPlan) -> str:
    """How many things differ, as `2 changes`."""
    return "1 change" if len(host.changes) == 1 else f"{len(host.changes)} changes"


@dataclass(frozen=True, slots=True)
class HostGroup:
    """Hosts of which the very same is to be said; `plan` is the first one's."""

    plan: HostPlan
    names: tuple[str, ...]


def grouped(hosts: Iterable[HostPlan]) -> list[HostGroup]:
    """Hosts with equal plans together; what is most urgent first, then what most hosts share."""
    names: dict[HostPlan, list[str]] = {}
    for host in hosts:
        names.setdefault(replace(host, name=""), []).append(host.name)
    groups = [HostGroup(replace(plan, name=names[0]), tuple(names)) for plan, names in names.items()]
    return sorted(groups, key=lambda group: (label(group.plan).rank, -len(group.names), group.names))


def counted(hosts: Iterable[HostPlan]) -> list[str]:
    """How many hosts are in each state, as `3 drifted`; most urgent first."""
    counts = Counter(label(host) for host in hosts)
    return [f"{count} {shown.counted}" for shown, count in sorted(counts.items())]


def counted_resources(resources: Sequence[ResourceChange]) -> list[str]:
    """How many resources are created, updated and so on, as `2 to create`."""
    counts = Counter(resource.operation for resource in resources)
    return [f"{count} to {operation}" for operation, count in sorted(counts.items())]


def headline(plan: Plan) -> str:
    """The plan in a sentence of our own words and numbers."""
    if not plan.is_finished:
        return "The preview failed. What it found before that is below."
    if not plan.changes_something:
        return f"Nothing to change: {_hosts(len(plan.hosts))} as declared."
    hosts = f"{_hosts(len(plan.hosts))}: {', '.join(counted(plan.hosts))}." if plan.hosts else "No host."
    resources = counted_resources(plan.resources)
    refused = " 'up' is blocked until the problems below are fixed." if plan.blockers else ""
    return f"{hosts} Resources: {', '.join(resources) or 'none'}.{refused}"


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"
