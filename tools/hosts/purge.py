"""`purge`: removes all of a fleet, whatever state a crash left it in. Names alone lead to everything."""

from collections.abc import Callable
from pathlib import Path

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
        for trace in _traces(places):
            mounts.remove_folder(trace)
        mounts.remove_folder(places.folder)
        for lock in places.folder.parent.glob(f"{places.folder.name}.*lock"):
            lock.unlink(missing_ok=True)
    say("purged")
    return {}


def _traces(places: FleetPlaces) -> list[Path]:
    """What killed containers left, also where the host's folder is gone."""
    found = [path for kind in machines.NSPAWN_KINDS for path in (machines.NSPAWN_FOLDER / kind).glob("*")]
    return [path for path in found if places.is_namespace(path.name)]
