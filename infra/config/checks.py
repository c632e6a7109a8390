"""What must hold between the values of a stack's configuration. Each check yields everything that is wrong."""

from __future__ import annotations

import ipaddress
import keyword
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from infra.config.names import nearest
from infra.config.precedence import ALL, PRIORITY, RENAMED, InventoryGroup, Precedence, renamed
from infra.config.schema import PREFIX, FleetSettings, GroupSettings
from infra.config.values import wrong_values
from infra.errors import SettingsError

Errors = Iterator[SettingsError]
Scopes = list[tuple[str, Mapping[str, Any]]]

# Groups that every inventory of Ansible has.
_RESERVED_GROUPS = frozenset({ALL, "ungrouped"})
_ROLE_PREFIX = "ai_"


def references(settings: FleetSettings) -> Errors:
    """Names of groups and jump hosts that are not there, circles, and keys that contradict each other."""
    for name, group in settings.groups.items():
        key = f"{PREFIX}groups.{name}"
        if name in _RESERVED_GROUPS:
            remedy = "give it another name; variables of all hosts are fleet:vars"
            yield SettingsError(key, f"every inventory of Ansible has a group '{name}' of its own", remedy)
        yield from _source(key, group)
        for child in group.children:
            if child not in settings.groups:
                yield SettingsError(f"{key}.children", f"no group '{child}'", nearest(child, settings.groups))
        if name in _descendants(settings, name):
            yield SettingsError(f"{key}.children", "the group contains itself", "break the circle")
        for host_name, host in group.hosts.items():
            yield from _jump(settings, f"{key}.hosts.{host_name}", host.jump or ())
        yield from _jump(settings, key, group.jump)
    for name, jump_host in settings.jump_hosts.items():
        yield from _jump(settings, f"{PREFIX}jumpHosts.{name}", jump_host.jump)
    for name in settings.api_keys:
        if name not in settings.groups:
            yield SettingsError(f"{PREFIX}apiKeys.{name}", "no such group", nearest(name, settings.groups))


def key_sources(settings: FleetSettings) -> Errors:
    """Two sources of the upstream key."""
    named = settings.source_of_the_key
    if named is None:
        return
    remedy = "keep one of the two: 'pulumi config rm'"
    for name, key in (("apiKey", settings.api_key), ("apiKeyNext", settings.api_key_next)):
        if key is not None:
            yield SettingsError(named[0], f"is set beside {PREFIX}{name}", remedy)
    if settings.api_key_secret is not None and settings.key_source is not None:
        yield SettingsError(named[0], f"is set beside {PREFIX}keySource", "keep one of the two")


def _source(key: str, group: GroupSettings) -> Errors:
    if group.children and (group.hosts or group.hosts_file or group.ec2):
        yield SettingsError(key, "has both hosts and children", "put the hosts into a group of their own")
    if group.source == "ec2" and group.ec2 is None:
        remedy = "say which instances with ec2: {filters: {'tag:Role': […]}}"
        yield SettingsError(f"{key}.ec2", "is missing", remedy)
    if group.source != "ec2" and group.ec2 is not None:
        yield SettingsError(f"{key}.ec2", f"has no effect with source: {group.source}", "set source: ec2")
    if group.source == "ec2" and (group.hosts or group.hosts_file):
        remedy = "put other hosts into a group of their own"
        yield SettingsError(f"{key}.hosts", "the hosts of this group come from EC2", remedy)
    if group.ec2 is not None and "instance-state-name" in group.ec2.filters:
        culprit = f"{key}.ec2.filters.instance-state-name"
        yield SettingsError(culprit, "states have a key of their own", "use ec2.states")


def _descendants(settings: FleetSettings, name: str) -> set[str]:
    found: set[str] = set()
    todo = list(settings.groups[name].children)
    while todo:
        child = todo.pop()
        if child not in found and child in settings.groups:
            found.add(child)
            todo += settings.groups[child].children
    return found


def _jump(settings: FleetSettings, key: str, jump: Iterable[str]) -> Errors:
    for name in jump:
        if name not in settings.jump_hosts:
            yield SettingsError(
                f"{key}.jump", f"no jump host '{name}'", f"declare it under {PREFIX}jumpHosts"
            )


def probe_source(settings: FleetSettings) -> Errors:
    """A registry that no engine keeps."""
    if settings.probe == "registry" and settings.coordination is None:
        remedy = "declare fleet:coordination, or set it to true"
        yield SettingsError(f"{PREFIX}probe", "is registry, but hosts have no engine to report to", remedy)


def uniqueness(settings: FleetSettings) -> Errors:
    """Names and addresses that are declared twice, and hosts that are called as a group is."""
    names: dict[str, str] = {}
    addresses: dict[str, str] = {}
    for key, name, address in _declared(settings):
        if name in names:
            reason = f"host '{name}' is declared twice, first as {names[name]}"
            yield SettingsError(key, reason, "keep one of the two")
        elif address in addresses:
            reason = f"{address} is declared twice, first by {addresses[address]}"
            yield SettingsError(f"{key}.address", reason, "correct one of the two")
        if name in settings.groups:
            reason = f"a group has the name '{name}' too, and Ansible could not tell them apart"
            yield SettingsError(key, reason, "rename one of the two")
        names.setdefault(name, key)
        addresses.setdefault(address, key)


def _declared(settings: FleetSettings) -> Iterator[tuple[str, str, str]]:
    """Key, name and address of every host."""
    for group_name, group in settings.groups.items():
        for name, host in group.hosts.items():
            address = f"{host.address}:{host.port or group.port or 22}"
            yield f"{PREFIX}groups.{group_name}.hosts.{name}", name, address
    for name, jump_host in settings.jump_hosts.items():
        yield f"{PREFIX}jumpHosts.{name}", name, f"{jump_host.address}:{jump_host.port}"


def variable_scopes(settings: FleetSettings) -> Scopes:
    """Every place where a user may write Ansible variables, with its key."""
    scopes: Scopes = [(f"{PREFIX}vars", settings.vars)]
    for group_name, group in settings.groups.items():
        key = f"{PREFIX}groups.{group_name}"
        scopes.append((f"{key}.vars", group.vars))
        scopes += [(f"{key}.hosts.{name}.vars", host.vars) for name, host in group.hosts.items()]
    return scopes


def precedence(settings: FleetSettings) -> Errors:
    """Groups of one rank that disagree: only the order of their names would say which value a host gets."""
    if any(_descendants(settings, name) & {name} for name in settings.groups):
        return  # a circle has no depth; it is an error of its own
    groups = {ALL: InventoryGroup(variables=renamed(settings.vars))}
    for name, group in settings.groups.items():
        hosts = {host: renamed(own.vars) for host, own in group.hosts.items()}
        # Hosts of a cloud are not known here; what they see of groups is as if the group had one.
        unknown: dict[str, dict[str, Any]] = {} if group.children or hosts else {f"({name})": {}}
        children = tuple(child for child in group.children if child in settings.groups)
        groups[name] = InventoryGroup(variables=renamed(group.vars), children=children, hosts=hosts | unknown)
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for found in Precedence(groups).disagreements():
        if (found.variable, found.groups) not in seen:
            seen.add((found.variable, found.groups))
            host = "the hosts of " + found.host if found.host.startswith("(") else found.host
            yield SettingsError(
                " and ".join(f"{PREFIX}groups.{name}.vars.{found.variable}" for name in found.groups),
                f"the groups have the same rank for {host} and disagree, so the order of their names would decide",
                f"give one value, or set it in a group below them, or give one of them a higher {PRIORITY}",
            )


_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str, int, float),
    "path": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
}
_NEVER_HERE = ("ai_api_key", "ai_api_key_next")


def variables(
    scopes: Scopes, known: Mapping[str, Mapping[str, Any]], hidden: frozenset[str] = frozenset()
) -> Errors:
    """Variables that the role does not have, of a wrong type, or that can't be written where they are.

    Args:
        scopes: every place, with its key.
        known: the role's variables with their declared types.
        hidden: values that stand for secret texts.
    """
    for key, own in scopes:
        for clash in sorted(own.keys() & RENAMED.keys()):
            if RENAMED[clash] in own:
                reason = f"is the same variable as {RENAMED[clash]}, which is also set"
                yield SettingsError(f"{key}.{clash}", reason, "keep one of the two")
        for name, value in own.items():
            yield from _variable(f"{key}.{name}", name, value, known=known, hidden=hidden)


def _variable(
    where: str, name: str, value: Any, *, known: Mapping[str, Mapping[str, Any]], hidden: frozenset[str]
) -> Errors:
    if name in _NEVER_HERE:
        remedy = "use 'pulumi config set --secret apiKey'"
        yield SettingsError(where, "a key does not belong here", remedy)
    elif name == PRIORITY and (not isinstance(value, int) or isinstance(value, bool)):
        yield SettingsError(where, f"is {_kind(value)}, not {_KINDS['int']}", f"write {_KINDS['int']}")
    elif name in known:
        yield from _value(where, name, value, known[name], hidden)
    elif name.startswith(_ROLE_PREFIX):
        yield SettingsError(where, "unknown variable", nearest(name, known))
    elif name not in RENAMED and (not name.isidentifier() or keyword.iskeyword(name)):
        remedy = "use letters, digits and underscores, and begin with a letter"
        yield SettingsError(where, "is not a valid name for an Ansible variable", remedy)


def _value(where: str, name: str, value: Any, spec: Mapping[str, Any], hidden: frozenset[str]) -> Errors:
    """What is wrong with the value of one of the role's variables."""
    wanted = str(spec.get("type", "str"))
    is_secret = isinstance(value, str) and value in hidden
    if is_secret and wanted not in {"str", "path"}:
        reason = f"is secret, but only a text can be secret, and this is {_KINDS[wanted]}"
        yield SettingsError(where, reason, "set it again without --secret")
    elif not _is_of(value, wanted):
        yield SettingsError(where, f"is {_kind(value)}, not {_KINDS[wanted]}", f"write {_KINDS[wanted]}")
    elif not is_secret and value is not None:
        yield from wrong_values(where, name, value, choices=tuple(spec.get("choices") or ()))
    if name in _OF_TEXTS and isinstance(value, Mapping):
        for tag, inner in value.items():
            if isinstance(inner, Mapping | list):
                reason = f"is {_kind(inner)}, and only a text or a number can be here"
                yield SettingsError(f"{where}.{tag}", reason, "write it as one text")
    if name not in _OF_SEVERAL_LINES:
        for path, reason in _unwritable(value):
            remedy = "write it on one line, without characters that have a meaning in the file, or remove it"
            yield SettingsError(where + path, reason, remedy)


_KINDS: Mapping[str, str] = {
    "str": "a text",
    "path": "a path",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a map",
}


def _kind(value: Any) -> str:
    """What a value is, in the words of somebody who writes YAML."""
    return _KINDS.get(type(value).__name__, type(value).__name__)


def _is_of(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "bool"
    return value is None or isinstance(value, _TYPES.get(wanted, (object,)))


# Files of their own, which hold what they are given.
_OF_SEVERAL_LINES = frozenset({"ai_custom_ca"})
# Names with a text each.
_OF_TEXTS = frozenset({"ai_cost_tags"})


def _unwritable(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Where a value holds what the lines of the hosts' configuration file can't, and why."""
    if value is None:
        yield path, "has no value (null), which a configuration file can't hold"
    elif isinstance(value, str) and (len(value.splitlines()) > 1 or value != value.strip()):
        yield (
            path,
            "has several lines, or blanks around it, so a configuration file would read another value",
        )
    elif isinstance(value, str) and not value.replace("\t", " ").isprintable():
        yield path, "has a character that can't be printed, which no configuration file should hold"
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            name = str(key)
            if not _is_name(name):
                yield path, "holds a name that a configuration file would read as something else"
            yield from _unwritable(inner, f"{path}.{name.splitlines()[0] if name else name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unwritable(inner, f"{path}.{index}")


def _is_name(text: str) -> bool:
    is_line = text == text.strip() and text.splitlines() == [text] and text.isprintable()
    return is_line and text[0] not in "[#;" and not {"=", "]"} & set(text)


def models(scopes: Scopes, listed: frozenset[str]) -> Errors:
    """Models without a price."""
    known = set(listed)
    for _, own in scopes:
        costs = own.get("ai_model_costs")
        known |= set(costs) if isinstance(costs, Mapping) else set()
    for key, own in scopes:
        for name in ("ai_model_default", "ai_fallback_model"):
            model = own.get(name)
            # What is no text is wrong by its type, and said so already.
            if isinstance(model, str) and model not in known:
                remedy = f"{nearest(model, known)} (a model of your own needs a price in ai_model_costs)"
                yield SettingsError(f"{key}.{name}", f"unknown model '{model}'", remedy)


def local_network(settings: FleetSettings) -> Errors:
    """Local hosts outside their network, and keys that only local hosts have."""
    try:
        network = settings.local.bridge_interface.network
        settings.local.link_ends  # noqa: B018  (read for its check)
    except ValueError as error:
        remedy = "write bridge as 10.88.0.1/24 and link as 198.18.0.0/30"
        yield SettingsError(f"{PREFIX}local", str(error), remedy)
        return
    for group_name, group in settings.groups.items():
        for name, host in group.hosts.items():
            key = f"{PREFIX}groups.{group_name}.hosts.{name}"
            if group.source != "local" and host.suite:
                remedy = "take it out, or set source: local"
                yield SettingsError(f"{key}.suite", "only local hosts have one", remedy)
            if group.source == "local" and not _is_in(host.address, network):
                reason = f"is not in the bridge's network {network}"
                yield SettingsError(f"{key}.address", reason, "take another address")


def _is_in(address: str, network: ipaddress.IPv4Network) -> bool:
    try:
        return ipaddress.IPv4Address(address) in network
    except ValueError:
        return False
