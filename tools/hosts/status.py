"""`status`: what of a fleet is there. Only reads, starts no program, and takes a few milliseconds."""

from tools.hosts import machines, netns, services
from tools.hosts.errors import HostsError
from tools.hosts.files import read_record
from tools.hosts.network import made_hosts
from tools.hosts.places import FleetPlaces
from tools.hosts.ssh import host_keys


def status(places: FleetPlaces) -> dict[str, object]:
    """The fleet as it is. Without root this works as long as the fleet does not exist."""
    try:
        known = read_record(places.known_hosts)
        return {
            "network": places.record.exists() and netns.exists(places.netns),
            "hosts": {name: _host(places, name, host_keys(known, name)) for name in made_hosts(places)},
            "services": {
                name: services.is_running(places.service(name)) for name in services.recorded(places)
            },
        }
    except PermissionError as error:
        raise HostsError(str(places.folder), "is root's alone", "run as root, or with sudo") from error


def _host(places: FleetPlaces, name: str, keys: list[str]) -> dict[str, object]:
    host = places.host(name)
    record = read_record(host.record) or {}
    address = record.get("address")
    return {
        "running": machines.is_up(host),
        "made": machines.is_made(host),
        "host_keys": keys,
        "address": str(address).partition("/")[0] if address else None,
    }
