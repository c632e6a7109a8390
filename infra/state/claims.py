"""Whose a host is: the owner of a stack's claims, which resource a claim is, and what leaves.

What a stack owns is what its state holds claims of, whatever its configuration says by now.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from infra.errors import RemovalError
from infra.hosts.model import Captured, Fleet, Node
from infra.state.last_run import Claimed, Recorded

_LISTED = 10
_DIGEST_LENGTH = 8
_LINEAGE_LENGTH = 12
# Whether a host is the machine that was claimed under its name; absent where its keys do not tell.
Sameness = Mapping[str, bool]


def owner(stack: str, recorded: Iterable[Claimed], *, declared: str | None, seeds: Iterable[str]) -> str:
    """The part of every claim that names the state.

    What the state recorded goes on, also after the stack was renamed. A new state's owner has a lineage beside the
    stack's name, so that two states of one name never own one host.

    Args:
        stack: name of the stack.
        recorded: claims in the state.
        declared: an owner to take over from; None where none is declared.
        seeds: what tells this state from others before it holds anything.
    """
    if declared:
        return declared
    known = Counter(claim.owner for claim in recorded)
    if known:
        return min(known, key=lambda name: (-known[name], name))
    lineage = hashlib.sha256("\0".join(seeds).encode()).hexdigest()[:_LINEAGE_LENGTH]
    return f"fleet/{stack}@{lineage}"


def seeds(environment: Mapping[str, str]) -> list[str]:
    """What tells a new state from others: machine, checkout, user and backend. Only a digest of it is recorded."""
    home = Path(environment.get("PULUMI_HOME") or Path(environment.get("HOME") or "/") / ".pulumi")
    found = [str(Path.cwd().resolve()), environment.get("PULUMI_BACKEND_URL", "")]
    for path in (Path("/etc/machine-id"), home / "credentials.json"):
        try:
            found.append(hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError:
            found.append("")
    return found


def sameness(fleet: Fleet, captured: Captured, recorded: Mapping[str, Claimed]) -> dict[str, bool]:
    """Whether each host whose address is another one now is the machine that it was, as far as host keys tell."""
    found: dict[str, bool] = {}
    for node in moved(fleet, recorded):
        keys = set(node.host_keys or captured.host_keys.get(node.name, ()))
        before = {key for claim in _of_host(node, recorded).values() for key in claim.host_keys}
        if keys and before:
            found[node.name] = bool(keys & before)
    return found


def moved(fleet: Fleet, recorded: Mapping[str, Claimed]) -> list[Node]:
    """Hosts at another address than every one that they were claimed at."""
    return [
        node
        for node in fleet.targets
        if not node.instance
        and (held := _of_host(node, recorded))
        and node.address not in {claim.address for claim in held.values()}
    ]


def resource_names(
    fleet: Fleet, recorded: Mapping[str, Claimed], same: Sameness, *, made_here: Iterable[str] = ()
) -> dict[str, str]:
    """The resource that claims each host, by the host's name.

    Another machine under the same name is another resource, so that the old one is cleaned up.

    Args:
        fleet: hosts that the stack declares.
        recorded: claims in the state, by resource.
        same: whether hosts whose address changed are the machines that they were; those it does not name are.
        made_here: names of hosts that the stack boots itself: no machine of theirs is left behind.
    """
    local = frozenset(made_here)
    return {node.name: _resource_name(node, recorded, same, node.name in local) for node in fleet.targets}


def _resource_name(node: Node, recorded: Mapping[str, Claimed], same: Sameness, is_local: bool) -> str:
    plain = f"claim-{node.name}"
    if node.instance:
        # Another instance under the same name is another host, and the old one is still to be cleaned up.
        return f"{plain}-{node.instance.id}"
    held = _of_host(node, recorded)
    if not held:
        return plain
    here = [name for name, claim in sorted(held.items()) if claim.address == node.address]
    if here or is_local or same.get(node.name, True):
        return here[0] if here else min(held, key=lambda name: (name != plain, name))
    return f"{plain}-{hashlib.sha256(node.address.encode()).hexdigest()[:_DIGEST_LENGTH]}"


def _of_host(node: Node, recorded: Mapping[str, Claimed]) -> dict[str, Claimed]:
    return {name: c for name, c in recorded.items() if c.host == node.name and not c.instance}


def ending(recorded: Mapping[str, Claimed], names: Mapping[str, str]) -> dict[str, Claimed]:
    """Claims that the stack holds and no longer declares, by resource."""
    declared = set(names.values())
    return {name: claim for name, claim in sorted(recorded.items()) if name not in declared}


def leaving(recorded: Mapping[str, Claimed], names: Mapping[str, str], fleet: Fleet) -> dict[str, Claimed]:
    """Claims that end and whose machines will be cleaned up, by resource.

    A machine that the stack declares under another name goes on: the new name's run takes it over.
    """
    renamed = set(new_names(recorded, names, fleet))
    return {name: claim for name, claim in ending(recorded, names).items() if name not in renamed}


def new_names(recorded: Mapping[str, Claimed], names: Mapping[str, str], fleet: Fleet) -> dict[str, str]:
    """Of each claim that ends while its machine stays, the machine's name from now on; by resource."""
    # Addresses of clouds are told apart by instance: two networks may have the same ones.
    now = {node.address: node.name for node in fleet.targets if not node.instance}
    return {
        name: now[claim.address]
        for name, claim in ending(recorded, names).items()
        if not claim.instance and claim.address in now and now[claim.address] != claim.host
    }


def under_new_names(last: Recorded, renamed: Mapping[str, str]) -> Recorded:
    """What the last run left, by the names that its machines have now.

    Args:
        last: the last run.
        renamed: new name of a machine, by the resource of its old claim.
    """
    names = {last.claims[resource].host: name for resource, name in renamed.items()}
    return replace(
        last,
        limits={names.get(host, host): limits for host, limits in last.limits.items()},
        waves={
            group: tuple(tuple(names.get(host, host) for host in wave) for wave in order)
            for group, order in last.waves.items()
        },
    )


def check(
    found: Mapping[str, Claimed], *, allowed: int, is_gone: Callable[[Claimed], bool] = lambda claim: False
) -> None:
    """Refuses where more machines would be cleaned up than the stack allows.

    Args:
        found: claims that leave.
        allowed: how many may leave at once.
        is_gone: whether a claim's machine is no more, so that nothing is taken down. Asked only where it matters.

    Raises:
        RemovalError: too many; names them.
    """
    if len(found) <= allowed:
        return
    removed = sorted(claim.said for claim in found.values() if not (claim.instance and is_gone(claim)))
    if len(removed) <= allowed:
        return
    names = ", ".join(removed[:_LISTED]) + (" …" if len(removed) > _LISTED else "")
    raise RemovalError(
        "fleet:maxRemovals",
        f"{len(removed)} hosts would be removed ({names}), but only {allowed} may be",
        f"correct the stack's file, or allow it with 'pulumi config set maxRemovals {len(removed)}'",
    )
