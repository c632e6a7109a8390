"""What each verb takes, from JSON to frozen values; nothing else in the package sees unchecked text."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import TypeVar

from tools.hosts.errors import HostsError

SUITES = ("bookworm", "trixie")
LOGIN = "deploy"
FLEET_MAX_CHARS = 20
HOST_MAX_CHARS = 32
_Address = TypeVar("_Address", IPv4Address, IPv4Interface)
# No "--": it is what separates fleet from host in the name of a namespace.
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


@dataclass(frozen=True)
class Link:
    """The only way in: a point-to-point link from this machine to the jump host."""

    control: IPv4Interface
    jump: IPv4Interface


@dataclass(frozen=True)
class NetworkSpec:
    """A private network: its bridge's own address and, where there is a jump host, the link to it."""

    fleet: str
    bridge: IPv4Interface
    link: Link | None


@dataclass(frozen=True)
class HostName:
    """One host of one fleet (or one service: they share the rules for names)."""

    fleet: str
    name: str


@dataclass(frozen=True)
class HostSpec:
    """A host as it shall be."""

    fleet: str
    name: str
    address: IPv4Interface
    suite: str
    link: IPv4Interface | None


@dataclass(frozen=True)
class Endpoint:
    """Where a service listens, seen from the fleet's bridge."""

    address: IPv4Address
    port: int


@dataclass(frozen=True)
class ServiceSpec:
    """A process in the fleet's bridge namespace; `argv` is relative to the project folder."""

    fleet: str
    name: str
    argv: tuple[str, ...]
    ready: Endpoint | None


def fleet_name(value: object) -> str:
    """A fleet's name, which becomes part of paths and namespace names."""
    return _name("fleet", value, FLEET_MAX_CHARS)


def parse_fleet(text: str) -> str:
    """Reads `{"fleet": …}`."""
    return fleet_name(_object(text, ("fleet",), optional=None)["fleet"])


def parse_name(text: str) -> HostName:
    """Reads `{"fleet": …, "name": …}`."""
    given = _object(text, ("fleet", "name"), optional=None)
    return HostName(fleet_name(given["fleet"]), _name("name", given["name"], HOST_MAX_CHARS))


def parse_network(text: str) -> NetworkSpec:
    """Reads the input of `network up`."""
    given = _object(text, ("fleet", "bridge"), optional=("link",))
    link = given.get("link")
    return NetworkSpec(
        fleet_name(given["fleet"]),
        _interface("bridge", given["bridge"]),
        None if link is None else _link(link),
    )


def parse_host(text: str) -> HostSpec:
    """Reads the input of `host up`."""
    given = _object(text, ("fleet", "name", "address"), optional=("suite", "link", "login"))
    if given.get("login", LOGIN) != LOGIN:
        raise HostsError("login", f"{given['login']!r} does not exist on local hosts", f"use {LOGIN!r}")
    link = given.get("link")
    return HostSpec(
        fleet_name(given["fleet"]),
        _name("name", given["name"], HOST_MAX_CHARS),
        _interface("address", given["address"]),
        suite_name(given.get("suite", SUITES[0])),
        None if link is None else _interface("link", link),
    )


def parse_service(text: str) -> ServiceSpec:
    """Reads the input of `service up`."""
    given = _object(text, ("fleet", "name", "argv"), optional=("ready",))
    argv = given["argv"]
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        raise HostsError("argv", f"{argv!r} is not a list of words", "give the program and its arguments")
    ready = given.get("ready")
    return ServiceSpec(
        fleet_name(given["fleet"]),
        _name("name", given["name"], HOST_MAX_CHARS),
        tuple(argv),
        None if ready is None else _endpoint(ready),
    )


def suite_name(value: object) -> str:
    """One of the Debian releases that boot here."""
    if value not in SUITES or not isinstance(value, str):
        raise HostsError("suite", f"{value!r} is not known", f"use one of {', '.join(SUITES)}")
    return value


def check_placement(host: HostSpec, network: NetworkSpec) -> None:
    """A host must lie in its network, and only the jump host has the link."""
    if host.address.network != network.bridge.network:
        reason = f"{host.address} is not in the network {network.bridge.network} of fleet {host.fleet}"
        raise HostsError(f"host {host.name}", reason, "give it an address of that network")
    if host.address.ip == network.bridge.ip:
        raise HostsError(f"host {host.name}", f"{host.address.ip} is the bridge's own", "choose another")
    if host.link is not None and (network.link is None or network.link.jump != host.link):
        wanted = None if network.link is None else str(network.link.jump)
        reason = f"its link {host.link} is not the network's ({wanted})"
        raise HostsError(f"host {host.name}", reason, "give both the same address")


def _object(text: str, required: Iterable[str], optional: Iterable[str] | None = ()) -> Mapping[str, object]:
    """A JSON object with the required keys. Without a list of optional ones any other key may be there: what takes a
    thing down may be given the whole order that put it up."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise HostsError("stdin", f"not JSON ({error})", "pipe one JSON object in") from error
    if not isinstance(given, dict):
        raise HostsError("stdin", "not a JSON object", "pipe one JSON object in")
    for key in required:
        if key not in given:
            raise HostsError("stdin", f"{key!r} is missing", f"add {key!r} to the object")
    known = {*required, *(optional or ())}
    for key in given if optional is not None else ():
        if key not in known:
            raise HostsError("stdin", f"{key!r} is unknown", f"use only {', '.join(sorted(known))}")
    return given


def _name(what: str, value: object, max_chars: int) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value) or len(value) > max_chars:
        remedy = f"use up to {max_chars} lower-case letters, digits and single hyphens between them"
        raise HostsError(what, f"{value!r} is not a name", remedy)
    return value


def _link(value: object) -> Link:
    if not isinstance(value, dict) or set(value) != {"control", "jump"}:
        raise HostsError("link", f"{value!r} is not a link", 'give {"control": …, "jump": …}')
    link = Link(_interface("link.control", value["control"]), _interface("link.jump", value["jump"]))
    if link.control.network != link.jump.network or link.control.ip == link.jump.ip:
        reason = f"{link.control} and {link.jump} are not two addresses of one network"
        raise HostsError("link", reason, "give both ends the same network")
    return link


def _interface(what: str, value: object) -> IPv4Interface:
    interface = _parsed(what, value, IPv4Interface, "one like 10.88.0.21/24")
    if interface.network.prefixlen > 30:
        raise HostsError(what, f"{value!r} leaves room for no other", "use a prefix length of 30 or less")
    if interface.ip in (interface.network.network_address, interface.network.broadcast_address):
        raise HostsError(what, f"{value!r} is not a host's address", "choose one within the network")
    return interface


def _endpoint(value: object) -> Endpoint:
    if not isinstance(value, dict) or set(value) != {"address", "port"}:
        raise HostsError("ready", f"{value!r} is not an endpoint", 'give {"address": …, "port": …}')
    port = value["port"]
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        raise HostsError("ready.port", f"{port!r} is not a port", "use 1 to 65535")
    return Endpoint(_parsed("ready.address", value["address"], IPv4Address, "one like 10.88.0.1"), port)


def _parsed(what: str, value: object, parse: Callable[[str], _Address], example: str) -> _Address:
    try:
        if isinstance(value, str):
            return parse(value)
    except ValueError:
        pass
    raise HostsError(what, f"{value!r} is not an address", f"use {example}")
