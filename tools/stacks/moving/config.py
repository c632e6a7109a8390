"""A stack's configuration from an inventory, and a line for everything that did not come along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.errors import SettingsError
from tools.stacks import stack_file
from tools.stacks.moving.source import Inventory, MovingError, Variables
from tools.stacks.moving.structure import LONE, Shape, shape
from tools.stacks.moving.variables import ADDRESS, CONNECTION, IDENTITY, PORT, USER, Left, translated

Config = dict[str, Any]

_DEFAULTS: Mapping[str, Any] = {USER: "deploy", PORT: 22}
_PREFIX = "fleet:"
_SHOWN = 5


class Move:
    """One inventory on its way into one stack."""

    def __init__(self, inventory: Inventory, *, stack: str, specs: Mapping[str, Mapping[str, Any]]) -> None:
        self._inventory = inventory
        self._stack = stack
        self._specs = specs
        self._shape: Shape = shape(inventory)
        self._group_reach: dict[str, dict[str, Any]] = {}
        self._host_reach: dict[str, dict[str, Any]] = {}
        self._notes = list(self._shape.notes)
        self._left: dict[tuple[str, str, str], list[str]] = {}

    def config(self) -> Config:
        """The configuration, as it stands below `config` in the stack's file.

        Raises:
            MovingError: nothing that the program accepts can be made of it.
        """
        everyone = self._variables("all", self._inventory.groups["all"].variables, reaches=self._group_reach)
        groups = {self._shape.group_names[name]: self._group(name) for name in self._shape.hosts}
        groups |= {self._shape.group_names[name]: self._parent(name) for name in self._shape.children}
        made: Config = {"fleet:environment": self._environment(everyone, groups), "fleet:groups": groups}
        self._say_how_to_reach(made)
        if everyone:
            made["fleet:vars"] = everyone
        return self._accepted(made)

    def notes(self) -> list[str]:
        """What did not come along or is not as it was, a line each."""
        left = [
            f"{origin}: {name} of {', '.join(scopes[:_SHOWN])}{' …' if len(scopes) > _SHOWN else ''}: {why}"
            for (origin, name, why), scopes in self._left.items()
        ]
        return [*left, *self._notes]

    def _group(self, name: str) -> Config:
        group = self._inventory.groups.get("ungrouped" if name == LONE else name)
        variables = self._variables(name, group.variables, reaches=self._group_reach) if group else {}
        hosts = {}
        for host in self._shape.hosts[name]:
            own = self._variables(host, self._inventory.hosts[host], reaches=self._host_reach)
            address = self._host_reach[host].get(ADDRESS, host)
            hosts[self._shape.host_names[host]] = {"address": str(address)} | ({"vars": own} if own else {})
        return ({"vars": variables} if variables else {}) | {"hosts": hosts}

    def _parent(self, name: str) -> Config:
        group = self._inventory.groups[name]
        variables = self._variables(name, group.variables, reaches=self._group_reach)
        children = [self._shape.group_names[child] for child in self._shape.children[name]]
        return {"children": children} | ({"vars": variables} if variables else {})

    def _variables(self, scope: str, variables: Variables, *, reaches: dict[str, dict[str, Any]]) -> Config:
        """The variables of one scope that come along; how to reach hosts is kept aside."""
        kept: Config = {}
        reach = reaches.setdefault(scope, {})
        for name, value in variables.items():
            answer = translated(name, value, self._specs)
            if isinstance(answer, Left):
                self._left.setdefault((value.origin, name, answer.reason), []).append(scope)
            elif name not in CONNECTION:
                kept[name] = answer
            elif CONNECTION[name] == ADDRESS and reaches is self._group_reach:
                self._left.setdefault((value.origin, name, "is for one host alone"), []).append(scope)
            else:
                reach[CONNECTION[name]] = answer
        return kept

    def _environment(self, everyone: Config, groups: Mapping[str, Config]) -> str:
        """What users mean by `environment`, where they all mean the same."""
        scopes = (everyone, *(group.get("vars", {}) for group in groups.values()))
        said = dict.fromkeys(
            scope[name] for scope in scopes for name in ("environment", "ai_environment") if name in scope
        )
        if len(said) == 1:
            return str(next(iter(said)))
        named = ", ".join(map(str, said)) or "none"
        self._note("fleet:environment", f"the inventory names {named}; {self._stack} is written")
        return self._stack

    def _say_how_to_reach(self, made: Config) -> None:
        """Writes login and port once: for the stack, a group, or a host, whichever says it for all."""
        seen = {host: self._seen(group, host) for group, hosts in self._shape.hosts.items() for host in hosts}
        users = {reach.get(USER, _DEFAULTS[USER]) for reach in seen.values()}
        shared = users.pop() if len(users) == 1 else _DEFAULTS[USER]
        if shared != _DEFAULTS[USER]:
            made["fleet:user"] = shared
        for group, hosts in self._shape.hosts.items():
            target = made["fleet:groups"][self._shape.group_names[group]]
            for key, usual in ((USER, shared), (PORT, _DEFAULTS[PORT])):
                _say_once(
                    target, key, {self._shape.host_names[h]: seen[h].get(key, usual) for h in hosts}, usual
                )
        files = {reach.get(IDENTITY) for reach in seen.values()}
        if len(files) == 1 and None not in files:
            made["fleet:ssh"] = {"identityFile": files.pop()}
        elif files - {None}:
            self._note(
                "ansible_ssh_private_key_file", "hosts log in with different keys; load them into an agent"
            )

    def _seen(self, group: str, host: str) -> dict[str, Any]:
        scopes = ("all", *reversed(self._shape.parents(group)), group)
        of_groups = (self._group_reach.get(scope, {}) for scope in scopes)
        return {k: v for reach in (*of_groups, self._host_reach[host]) for k, v in reach.items()}

    def _accepted(self, made: Config) -> Config:
        """Takes out what the program refuses, until it accepts the rest."""
        while True:
            try:
                stack_file.load_config(made, stack=self._stack)
            except SettingsError as error:
                taken = _take_out(made, error.culprit)
                if taken is None:
                    raise MovingError(f"the program would refuse this inventory: {error}") from None
                self._note(taken, f"{error.reason}; {error.remedy}")
            else:
                return made

    def _note(self, what: str, why: str) -> None:
        self._notes.append(f"{what}: {why}")


def _say_once(target: Config, key: str, values: Mapping[str, Any], usual: Any) -> None:
    if len(set(values.values())) == 1:
        value = next(iter(values.values()))
        if value != usual:
            target[key] = value
        return
    for host, value in values.items():
        if value != usual:
            target["hosts"][host][key] = value


def _take_out(made: Config, culprit: str) -> str | None:
    """Removes what a settings error names, and answers its key; None where it can't be removed.

    A host can't be without its address: it goes as a whole.
    """
    top, *path = culprit.removeprefix(_PREFIX).split(".")
    place, key = made, _PREFIX + top
    for part in path:
        inner = place.get(key)
        if not isinstance(inner, dict) or part not in inner:
            break
        if part == "address":
            break
        place, key = inner, part
    if key not in place or (place is made and key in {"fleet:environment", "fleet:groups"}):
        return None
    del place[key]
    return culprit
