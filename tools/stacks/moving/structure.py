"""Groups as a stack can have them: each host in one group of hosts, everything else groups of groups."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tools.stacks.moving.source import Inventory, MovingError

_BUILT_IN = ("all", "ungrouped")
LONE = "hosts_without_group"


@dataclass(slots=True)
class Shape:
    """Groups and hosts under the names that a stack can have.

    Attributes:
        hosts: original names of the hosts of each group of hosts, by original name of the group.
        children: original names of the groups inside each group of groups.
        group_names: name in the stack of each group, by its original name.
        host_names: name in the stack of each host, by its original name.
        notes: what is not as the inventory had it.
    """

    hosts: dict[str, list[str]] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)
    group_names: dict[str, str] = field(default_factory=dict)
    host_names: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def parents(self, group: str) -> list[str]:
        """Groups that hold a group, nearest first."""
        direct = [name for name, children in self.children.items() if group in children]
        return direct + [further for name in direct for further in self.parents(name)]


def shape(inventory: Inventory) -> Shape:
    """Sorts the groups of an inventory.

    Raises:
        MovingError: two groups or hosts would have one name.
    """
    made = Shape()
    groups = {name: group for name, group in inventory.groups.items() if name not in _BUILT_IN}
    for name, group in groups.items():
        made.children[name] = list(group.children)
        made.hosts[name] = list(dict.fromkeys(group.hosts))
    if lone := inventory.groups["ungrouped"].hosts:
        made.hosts[LONE] = list(lone)
        made.notes.append(f"{', '.join(lone)}: in no group; now in the group {LONE}")
    _gather(made)
    _keep_each_host_once(made)
    _split(made)
    for name in [name for name, children in made.children.items() if not children]:
        del made.children[name]
    _rename(made, inventory.hosts)
    return made


def _gather(made: Shape) -> None:
    """A group that only lists the hosts of whole other groups becomes a group of these."""
    for name, hosts in made.hosts.items():
        if not hosts or made.children.get(name):
            continue
        parts = [
            other
            for other, theirs in made.hosts.items()
            if other != name and theirs and set(theirs) < set(hosts) and not made.children.get(other)
        ]
        if {host for part in parts for host in made.hosts[part]} == set(hosts):
            made.children[name], made.hosts[name] = parts, []
            made.notes.append(f"group {name}: lists the hosts of {', '.join(parts)}; now a group of these")


def _keep_each_host_once(made: Shape) -> None:
    home: dict[str, str] = {}
    for name, hosts in made.hosts.items():
        for host in list(hosts):
            if host not in home:
                home[host] = name
                continue
            hosts.remove(host)
            if home[host] not in _below(made, name):
                made.notes.append(
                    f"host {host}: also in group {name}; it stays in {home[host]} alone, and has no variables of {name}"
                )


def _below(made: Shape, group: str) -> set[str]:
    found: set[str] = set()
    todo = list(made.children.get(group, ()))
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += made.children.get(name, ())
    return found


def _split(made: Shape) -> None:
    """A group has hosts or groups: one with both gets a group of its own for the hosts."""
    for name in [name for name, hosts in made.hosts.items() if made.children.get(name)]:
        hosts = made.hosts.pop(name)
        if hosts:
            own = f"{name}_hosts"
            made.hosts[own] = hosts
            made.children[name].append(own)
            made.notes.append(f"group {name}: has hosts beside groups; its hosts are now in the group {own}")


def _rename(made: Shape, hosts: Iterable[str]) -> None:
    groups = dict.fromkeys((*made.hosts, *made.children))
    made.group_names = _renamed("group", groups, _group_name)
    made.host_names = _renamed("host", hosts, _host_name)
    for kind, names in (("group", made.group_names), ("host", made.host_names)):
        made.notes += [f"{kind} {old}: is named {new} now" for old, new in names.items() if old != new]


def _renamed(kind: str, names: Iterable[str], adapt: Callable[[str], str]) -> dict[str, str]:
    taken: dict[str, str] = {}
    for name in names:
        other = taken.setdefault(adapt(name), name)
        if other != name:
            raise MovingError(
                f"{kind}s '{other}' and '{name}' would both be '{adapt(name)}'; rename one of them"
            )
    return {name: new for new, name in taken.items()}


def _group_name(name: str) -> str:
    adapted = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")[:63]
    return adapted if re.match(r"[a-z]", adapted) else f"group_{adapted}".rstrip("_")


def _host_name(name: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:63].strip("-") or "host"
