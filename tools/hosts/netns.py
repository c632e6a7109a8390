"""Network namespaces, the bridge between them, and sockets opened within one."""

import ctypes
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from tools.hosts.commands import run
from tools.hosts.errors import HostsError
from tools.hosts.inputs import HostSpec, Link, NetworkSpec
from tools.hosts.places import NETNS_FOLDER, FleetPlaces, HostPlaces

BRIDGE = "bridge0"
_CLONE_NEWNET = 0x40000000
_REMEDY = "run as root on a kernel with network namespaces, bridges and veth pairs"


def exists(netns: str) -> bool:
    """Whether a whole namespace of this name is there; a crash may leave its file without it."""
    try:
        return path_of(netns).stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def holds(netns: str, pid: int) -> bool:
    """Whether a process is in a namespace."""
    try:
        return path_of(netns).stat().st_ino == Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return False


def hardware_address(address: IPv4Interface) -> str:
    """A MAC that follows from the address: a host wired anew must not wait until its neighbours forget the old one."""
    return ":".join(f"{byte:02x}" for byte in (0x0A, 0x58, *address.ip.packed))


def path_of(netns: str) -> Path:
    """The namespace's file."""
    return NETNS_FOLDER / netns


def names() -> list[str]:
    """Every named namespace of this machine."""
    return sorted(path.name for path in NETNS_FOLDER.iterdir()) if NETNS_FOLDER.is_dir() else []


def raise_bridge(places: FleetPlaces, network: NetworkSpec) -> None:
    """Makes the bridge's namespace, where it is not there in full."""
    if exists(places.netns) and _has_address(places.netns, BRIDGE, network.bridge):
        return
    remove(places.netns)
    _ip("netns", "add", places.netns)
    _batch(
        places.netns,
        "link set lo up",
        f"link add {BRIDGE} address {hardware_address(network.bridge)} type bridge",
        f"link set {BRIDGE} up",
        f"addr add {network.bridge} dev {BRIDGE}",
    )


def wire_host(host: HostPlaces, spec: HostSpec, link: Link | None) -> None:
    """Makes a stopped host's namespace anew, with its cable to the bridge and, for the jump host, the link."""
    unwire_host(host, with_link=link is not None)
    if link is not None:
        check_link_is_free(link, host.fleet.link_interface)
    _ip("netns", "add", host.netns)
    _forbid_forwarding(host.netns)
    bridge = host.fleet.netns
    _cable(bridge, host.bridge_port, host.netns, "lan0")
    _batch(bridge, f"link set {host.bridge_port} master {BRIDGE} up")
    _batch(host.netns, "link set lo up", *_settings("lan0", spec.address))
    if link is not None:
        _cable(None, host.fleet.link_interface, host.netns, "link0")
        _batch(host.netns, *_settings("link0", link.jump))
        _batch(None, *_settings(host.fleet.link_interface, link.control))


def unwire_host(host: HostPlaces, *, with_link: bool) -> None:
    """Removes a host's namespace and cables; deleted by hand, since the kernel frees a namespace's later."""
    if host.bridge_port in _interfaces(host.fleet.netns):
        _ip("-n", host.fleet.netns, "link", "del", host.bridge_port)
    if with_link:
        remove_link(host.fleet)
    remove(host.netns)


def is_wired(host: HostPlaces, *, with_link: bool) -> bool:
    """Whether a host's namespace and cables are all there; starts no program."""
    if not exists(host.netns) or host.bridge_port not in _interfaces(host.fleet.netns):
        return False
    return not with_link or host.fleet.link_interface in _interfaces(None)


def remove_link(places: FleetPlaces) -> None:
    """Removes this machine's end of the link, and with it the other."""
    if places.link_interface in _interfaces(None):
        _ip("link", "del", places.link_interface)


def remove(netns: str) -> None:
    """Removes a namespace, also one whose mount did not survive."""
    if path_of(netns).exists():
        _ip("netns", "del", netns)


def check_link_is_free(link: Link, own_interface: str) -> None:
    """The link's subnet must be no other's: not this machine's, not another fleet's."""
    for interface in json.loads(_ip("-j", "-4", "addr", "show")):
        for given in interface.get("addr_info", []):
            taken = IPv4Interface(f"{given['local']}/{given['prefixlen']}")
            if interface["ifname"] != own_interface and taken.network.overlaps(link.control.network):
                reason = f"{link.control.network} overlaps {taken} of interface {interface['ifname']}"
                raise HostsError("link", reason, "choose another subnet, or take down the fleet that has it")
    for route in json.loads(_ip("-j", "-4", "route", "show")):
        if route["dst"] == "default" or route.get("dev") == own_interface:
            continue
        if IPv4Network(route["dst"]).overlaps(link.control.network):
            reason = f"{link.control.network} overlaps the route to {route['dst']}"
            raise HostsError("link", reason, "choose another subnet")


@contextmanager
def inside(netns: str | None) -> Iterator[None]:
    """Sockets that this thread opens meanwhile belong to the namespace (None: to this machine's own)."""
    if netns is None:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        away = os.open(path_of(netns), os.O_RDONLY)
        try:
            _setns(away)
        finally:
            os.close(away)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def _setns(handle: int) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "setns")


def _cable(netns: str | None, interface: str, far_netns: str, far_interface: str) -> None:
    where = [] if netns is None else ["-n", netns]
    _ip(*where, "link", "add", interface, "type", "veth", "peer", "name", far_interface, "netns", far_netns)


def _settings(interface: str, address: IPv4Interface) -> list[str]:
    return [
        f"link set {interface} address {hardware_address(address)}",
        f"addr add {address} dev {interface}",
        f"link set {interface} up",
    ]


def _forbid_forwarding(netns: str) -> None:
    """A new namespace may inherit forwarding from the machine; a jump host must not be a router."""
    with inside(netns):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0\n")


def _has_address(netns: str, interface: str, address: IPv4Interface) -> bool:
    found = json.loads(_ip("-n", netns, "-j", "-4", "addr", "show") or "[]")
    return any(
        entry["ifname"] == interface and str(address) == f"{given['local']}/{given['prefixlen']}"
        for entry in found
        for given in entry.get("addr_info", [])
    )


def _interfaces(netns: str | None) -> set[str]:
    if netns is not None and not exists(netns):
        return set()
    with inside(netns):
        return {name for _, name in socket.if_nameindex()}


def _batch(netns: str | None, *lines: str) -> None:
    where = [] if netns is None else ["-n", netns]
    run(["ip", *where, "-batch", "-"], stdin="\n".join(lines) + "\n", remedy=_REMEDY)


def _ip(*words: str) -> str:
    return run(["ip", *words], remedy=_REMEDY)
