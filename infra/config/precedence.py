"""Which variable wins on a host. It is computed here and nowhere else, as Ansible does it.

Weakest first: the variables of all hosts; groups by depth, within a depth by `ansible_group_priority`, then by name;
the host's own. A value replaces another one as a whole (docs.ansible.com, "How variables are merged").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

ALL = "all"
PRIORITY = "ansible_group_priority"

# `environment` is a keyword of plays and tasks: a variable of that name draws a warning and can shadow it.
# What users mean by it is `ai_environment`.
RENAMED: Mapping[str, str] = {"environment": "ai_environment"}

Variables = Mapping[str, Any]


def renamed(variables: Variables) -> dict[str, Any]:
    """Variables under the names that Ansible can hold."""
    return {RENAMED.get(name, name): value for name, value in variables.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryGroup:
    """A group of an inventory.

    Attributes:
        variables: its own variables.
        children: names of the groups right inside it.
        hosts: its own hosts, each with the host's own variables.
    """

    variables: Variables = field(default_factory=dict)
    children: tuple[str, ...] = ()
    hosts: Mapping[str, Variables] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A place where a host's variables are written.

    Attributes:
        name: the group, or the host itself.
        depth: how far below `all` the group is, by the longest way; None for the host itself.
        priority: the group's `ansible_group_priority`, 1 where it has none.
        variables: what is written there.
    """

    name: str
    depth: int | None
    priority: int
    variables: Variables


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """Groups of one rank that give a host different values of a variable, and nothing below them decides."""

    variable: str
    host: str
    groups: tuple[str, ...]


class Precedence:
    """The variables of every host of an inventory.

    Args:
        groups: every group by name; `all` may be among them. A group in no other is right inside `all`.
    """

    def __init__(self, groups: Mapping[str, InventoryGroup]) -> None:
        self._groups = {ALL: InventoryGroup(), **groups}

    @classmethod
    def of_inventory(cls, inventory: Mapping[str, Any]) -> Precedence:
        """Of an inventory in its YAML form, as data. A group may stand in it at several places."""
        groups: dict[str, InventoryGroup] = {}
        _collect(inventory, groups)
        return cls(groups)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host, each once."""
        return tuple(self._groups_of)

    def variables(self, host: str) -> dict[str, Any]:
        """All variables that a host sees."""
        merged: dict[str, Any] = {}
        for scope in self.scopes(host):
            merged |= scope.variables
        merged.pop(PRIORITY, None)
        return merged

    def scopes(self, host: str) -> tuple[Scope, ...]:
        """Every place where variables of a host are written, the weakest first."""
        names = {ALL, *(above for group in self._groups_of[host] for above in (group, *self._above[group]))}
        groups = sorted((self._scope(name) for name in names), key=_rank)
        own: dict[str, Any] = {}
        for group in self._groups_of[host]:
            own |= self._groups[group].hosts[host]
        return (*groups, Scope(name=host, depth=None, priority=1, variables=own))

    def disagreements(self) -> Iterator[Disagreement]:
        """Where only the order of names would decide which value a host gets."""
        for host in self.hosts:
            yield from _disagreements(host, self.scopes(host))

    def _scope(self, name: str) -> Scope:
        variables = self._groups[name].variables
        priority = variables.get(PRIORITY, 1)
        return Scope(name=name, depth=self._depth(name), priority=int(priority), variables=variables)

    def _depth(self, name: str) -> int:
        if name not in self._depths:
            above = [self._depth(parent) for parent in self._parents.get(name, ())]
            self._depths[name] = 0 if name == ALL else max(above, default=0) + 1
        return self._depths[name]

    @cached_property
    def _depths(self) -> dict[str, int]:
        return {}

    @cached_property
    def _parents(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, group in self._groups.items():
            for child in group.children:
                found.setdefault(child, []).append(name)
        return found

    @cached_property
    def _above(self) -> dict[str, set[str]]:
        """All groups that hold a group, at any distance."""
        found: dict[str, set[str]] = {}
        for name in self._groups:
            todo, seen = [*self._parents.get(name, ())], set()
            while todo:
                parent = todo.pop()
                if parent not in seen:
                    seen.add(parent)
                    todo += self._parents.get(parent, ())
            found[name] = seen
        return found

    @cached_property
    def _groups_of(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, group in self._groups.items():
            for host in group.hosts:
                found.setdefault(host, []).append(name)
        return found


def _rank(scope: Scope) -> tuple[int, int, str]:
    return (scope.depth or 0, scope.priority, scope.name)


def _disagreements(host: str, scopes: tuple[Scope, ...]) -> Iterator[Disagreement]:
    decided = set(scopes[-1].variables) | {PRIORITY}
    ranks = groupby(reversed(scopes[:-1]), key=lambda scope: (scope.depth, scope.priority))
    for _, same_rank in ranks:
        rank = tuple(same_rank)
        for name in dict.fromkeys(name for scope in rank for name in scope.variables):
            values = [scope.variables[name] for scope in rank if name in scope.variables]
            if name not in decided and any(value != values[0] for value in values):
                groups = sorted(scope.name for scope in rank if name in scope.variables)
                yield Disagreement(variable=name, host=host, groups=tuple(groups))
        decided.update(name for scope in rank for name in scope.variables)


def _collect(entries: Mapping[str, Any], groups: dict[str, InventoryGroup]) -> None:
    for name, content in entries.items():
        entry = content or {}
        known = groups.get(name, InventoryGroup())
        children = entry.get("children") or {}
        hosts = {host: own or {} for host, own in (entry.get("hosts") or {}).items()}
        groups[name] = InventoryGroup(
            variables={**known.variables, **(entry.get("vars") or {})},
            children=tuple(dict.fromkeys([*known.children, *children])),
            hosts={
                **known.hosts,
                **{host: {**known.hosts.get(host, {}), **own} for host, own in hosts.items()},
            },
        )
        _collect(children, groups)
