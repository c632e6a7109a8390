"""`purge`: removes all of a fleet, whatever state a crash left it in. Names alone lead to everything."""

from collections.abc import Callable

from tools.hosts import machines, mounts, netns, processes
from tools.hosts.files import locked
from tools.hosts.network import made_hosts
from tools.hosts.places import FleetPlaces

Say = Callable[[str], None]


def purge(places: FleetPlaces, say: Say) -> dict[str, object]:
    """Ends the fleet's processes, then removes its mounts, namespaces, link and folders."""
    with locked(places.lock, say=say):
        processes.kill_cgroup(places.cgroup)
        spaces = [name for name in netns.names() if places.is_namespace(name)]
        inodes = {netns.path_of(name).stat().st_ino for name in spaces if netns.exists(name)}
        processes.kill_namespaces(inodes)
        netns.remove_link(places)
        for name in made_hosts(places):
            machines.clear(places.host(name), with_link=False)
        for name in spaces:
            netns.remove(name)
        mounts.remove_folder(places.folder)
        for lock in places.folder.parent.glob(f"{places.folder.name}.*lock"):
            lock.unlink(missing_ok=True)
    say("purged")
    return {}
