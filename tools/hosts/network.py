"""`network up` and `network down`: the fleet's private network, and the secrets of its control side."""

from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path

from tools.hosts import netns, processes, services
from tools.hosts.errors import HostsError
from tools.hosts.files import locked, read_record, write_record
from tools.hosts.inputs import Link, NetworkSpec
from tools.hosts.mounts import remove_folder
from tools.hosts.places import FleetPlaces
from tools.hosts.ssh import ensure_key_pair, ensure_token

Say = Callable[[str], None]


def network_up(places: FleetPlaces, network: NetworkSpec, say: Say) -> dict[str, object]:
    """Makes or completes the network; what is there already stays as it is."""
    with locked(places.lock, say=say):
        was = read_network(places, network.fleet)
        if was is not None and was != network and made_hosts(places):
            reason = f"its addresses can't change under its hosts ({', '.join(made_hosts(places))})"
            raise HostsError(f"fleet {network.fleet}", reason, "take the hosts down first")
        if network.link is not None:
            netns.check_link_is_free(network.link, places.link_interface)
        make_folder(places.folder)
        write_network(places, network)
        netns.raise_bridge(places, network)
        public = ensure_key_pair(places.identity, f"ai-client-fleet {network.fleet}")
        token_sha256 = ensure_token(places.gateway_token)
    say(f"network {network.fleet}: up")
    return {"identity_public_key": public, "gateway_token_sha256": token_sha256}


def network_down(places: FleetPlaces, fleet: str, say: Say) -> dict[str, object]:
    """Removes the network, its services, the key and the folder; refuses while hosts are there."""
    with locked(places.lock, say=say):
        hosts = made_hosts(places)
        if hosts:
            raise HostsError(
                f"fleet {fleet}", f"still has hosts ({', '.join(hosts)})", "take them down, or purge"
            )
        for name in services.recorded(places):
            services.remove(places.service(name))
        processes.kill_cgroup(places.cgroup)
        netns.remove_link(places)
        netns.remove(places.netns)
        remove_folder(places.folder)
        places.lock.unlink(missing_ok=True)
    say(f"network {fleet}: down")
    return {}


def read_network(places: FleetPlaces, fleet: str) -> NetworkSpec | None:
    """The network as it was made."""
    record = read_record(places.record)
    if record is None:
        return None
    link = record.get("link")
    return NetworkSpec(
        fleet,
        IPv4Interface(str(record["bridge"])),
        Link(IPv4Interface(link["control"]), IPv4Interface(link["jump"])) if isinstance(link, dict) else None,
    )


def write_network(places: FleetPlaces, network: NetworkSpec) -> None:
    """Records the network, before anything of it exists."""
    link = network.link and {"control": str(network.link.control), "jump": str(network.link.jump)}
    write_record(places.record, {"bridge": str(network.bridge), "link": link})


def made_hosts(places: FleetPlaces) -> list[str]:
    """Hosts that have a folder, made in full or half."""
    folder = places.folder / "hosts"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def make_folder(folder: Path) -> None:
    """The fleet's folder, root's alone: it holds the key."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
