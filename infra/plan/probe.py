"""What `up` would change on each host, read from the host itself.

A probe is a playbook run in check mode: the host compares its bytes with the declared state and answers with what
differs. It changes nothing. What it found decides which runs `up` repeats although no input changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from infra.config.precedence import Precedence
from infra.config.schema import FleetSettings
from infra.errors import PlaybookError
from infra.hosts.inventory import inventory
from infra.hosts.model import Captured, Fleet, Node
from infra.masking import mask_forms
from infra.plan import drift, registry, render
from infra.plan.drift import Inputs
from infra.plan.finding import Finding, HostState, difference
from infra.plan.registry import Words
from infra.plan.visible_inputs import VisibleInputs
from infra.playbook import pinned_releases, requests
from infra.playbook.request import RunRequest
from infra.playbook.runner import HostResults, execute
from infra.playbook.ssh import is_pinned
from infra.secret_texts import reveal
from infra.state.last_run import Applied

# Each probe is an Ansible of its own, with its memory and its forks.
_PROBES_AT_ONCE = 4


def look(
    settings: FleetSettings,
    fleet: Fleet,
    captured: Captured,
    *,
    running: frozenset[str],
    visible: VisibleInputs,
    last: Mapping[str, Applied],
    reached: Collection[str] | None = None,
    words: Words | None = None,
) -> dict[str, Finding]:
    """What each host differs in, from what is declared and from what was last applied.

    A host without key, pin or machine is not contacted.

    Args:
        settings: the stack's settings.
        fleet: its hosts.
        captured: what is known of hosts that the stack made.
        running: names of local hosts that run.
        visible: what a reader sees of each run.
        last: what was last applied, by host.
        reached: names of the hosts that the operation reaches; None for all.
        words: what hosts say of themselves; those that by it are unchanged are not contacted. None in an update.

    Raises:
        SettingsError: hosts are pinned to a release that this machine does not have.
    """
    pinned_releases.check(settings)
    seen = Precedence.of_inventory(
        inventory(fleet, requests.shared_variables(settings, captured), claimed=True)
    )
    known = {} if words is None else by_word(settings, fleet, words, seen=seen, visible=visible, last=last)
    findings = _look(settings, fleet, captured, running, reached, known=known)
    return _compare(settings, fleet, seen=seen, visible=visible, findings=findings, last=last)


def by_word(
    settings: FleetSettings,
    fleet: Fleet,
    words: Words,
    *,
    seen: Precedence,
    visible: VisibleInputs,
    last: Mapping[str, Applied],
) -> dict[str, Finding]:
    """The hosts that are unchanged by their own word; only of those that said something more is worked out."""
    before, found = registry.LastInputs(), {}
    for group in fleet.groups:
        for node in group.nodes:
            applied = last.get(node.name)
            if applied is None or node.name not in words.by_host:
                continue
            now = _inputs(settings, group.name, node, seen=seen, visible=visible)
            was = before.of(applied, node.name)
            if registry.is_unchanged(node.name, words, last=applied, before=was, now=now):
                found[node.name] = Finding(HostState.SAME, is_by_word=True)
    return found


def _inputs(
    settings: FleetSettings, group: str, node: Node, *, seen: Precedence, visible: VisibleInputs
) -> Inputs:
    """What the next run puts on a host."""
    said = visible.of_wave(group, [node])
    return Inputs(
        variables=reveal(render.role_view(seen, node.name), settings.secrets),
        content=said["CONTENT"],
        key=said["KEY"],
        key_next=said["KEY_NEXT"],
    )


def _look(
    settings: FleetSettings,
    fleet: Fleet,
    captured: Captured,
    running: frozenset[str],
    reached: Collection[str] | None,
    *,
    known: Mapping[str, Finding],
) -> dict[str, Finding]:
    findings: dict[str, Finding] = {}
    todo = []
    for group in fleet.groups:
        asked = []
        for node in group.nodes:
            finding = _without_contact(settings, group.name, node, running, reached)
            if finding is None and node.name in known:
                findings[node.name] = known[node.name]
            elif finding is None and _all_pinned(fleet, node.name, captured):
                asked.append(node)
            else:
                findings[node.name] = finding or Finding(HostState.BLOCKED)
        if asked:
            todo.append(requests.deploy(settings, fleet, captured, group=group.name, nodes=asked, check=True))
    return findings | probe(todo)


def _without_contact(
    settings: FleetSettings,
    group: str,
    node: Node,
    running: frozenset[str],
    reached: Collection[str] | None,
) -> Finding | None:
    """What is known of a host that is not to be asked; None of one that is."""
    if node.away:
        return Finding(HostState.CORDONED if node.is_cordoned else HostState.AWAY, node.away)
    if settings.groups[group].source == "local" and node.name not in running:
        return Finding(HostState.ABSENT)
    if not settings.probe:
        return Finding(HostState.UNSEEN)
    if reached is not None and node.name not in reached:
        return Finding(HostState.UNSEEN, "not among this operation's targets")
    return Finding(HostState.BLOCKED) if settings.key_for(group) is None else None


def _all_pinned(fleet: Fleet, name: str, captured: Captured) -> bool:
    """Whether the host and every jump host on the way to it have a pinned key."""
    by_name = {node.name: node for node in (*fleet.jump_hosts, *fleet.targets)}
    return all(is_pinned(by_name[hop], captured) for hop in (*by_name[name].jump, name))


def _compare(
    settings: FleetSettings,
    fleet: Fleet,
    *,
    seen: Precedence,
    visible: VisibleInputs,
    findings: Mapping[str, Finding],
    last: Mapping[str, Applied],
) -> dict[str, Finding]:
    """The findings with their drift marked, and with a plan for who gave no answer."""
    judged = dict(findings)
    for group in fleet.groups:
        for node in group.nodes:
            finding = findings[node.name]
            if finding.state in drift.JUDGED:
                now = _inputs(settings, group.name, node, seen=seen, visible=visible)
                judged[node.name] = drift.judge(finding, node.name, last=last.get(node.name), now=now)
    known = {*settings.secrets.values(), *(text for was in last.values() for text in was.secrets.values())}
    return {host: finding.masked(known) for host, finding in judged.items()}


def probe(requests: Iterable[RunRequest]) -> dict[str, Finding]:
    """Looks at every host of the requests, group by group side by side."""
    todo = list(requests)
    if not todo:
        return {}
    with ThreadPoolExecutor(max_workers=_PROBES_AT_ONCE) as pool:
        return {host: finding for found in pool.map(_probe, todo) for host, finding in found.items()}


def _probe(request: RunRequest) -> dict[str, Finding]:
    try:
        results, _ = execute(request)
    except PlaybookError as error:
        return {host: Finding(HostState.FAILED, str(error)) for host in request.hosts()}
    return {host: finding_of(host, results) for host in request.hosts()}


def finding_of(host: str, results: HostResults) -> Finding:
    result = results.get(host)
    if result is None:
        return Finding(HostState.FAILED, "gave no result")
    message = mask_forms(" ".join(str(result.get("message", "")).split()))
    if result.get("unreachable"):
        return Finding(HostState.UNREACHABLE, message)
    if result.get("failed"):
        return Finding(HostState.FAILED, message)
    # What the host knows to be secret it has masked itself; the rest is masked by its look.
    differences = tuple(
        difference(entry["path"], entry["before"], entry["after"], side="on the host")
        for entry in result.get("diffs") or ()
    )
    state = HostState.DIFFERS if result.get("changed") else HostState.SAME
    seen = {name: result.get(name) for name in _SEEN}
    seen |= _limits_on_host(result.get("diffs") or ())
    return Finding(state, _notes(result), differences=differences, seen=seen)


def _notes(result: Mapping[str, object]) -> str:
    """What others have done on the host that a reader should know, and that is left alone."""
    notes = result.get("notes")
    return mask_forms("; ".join(map(str, notes))) if isinstance(notes, list) else ""


def _limits_on_host(diffs: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """What the configuration on a host lets it send, where that file differs from the declared one."""
    for entry in diffs:
        if entry["path"].endswith(f"/{render.CONFIG}"):
            found = {name: _NUMBER[name].search(entry["before"]) for name in _NUMBER}
            return {"limits": tuple(int(match[1] or 0) if match else 0 for match in found.values())}
    return {}


_NUMBER = {name: re.compile(rf"(?m)^{name} = (\d*)$") for name in ("rate_limit", "token_limit")}
_SEEN = ("claim", "release", "config_digest", "key_fingerprint", "key_next_fingerprint", "journal")
