"""What this project laid down on a host, by record: nothing else is ever removed, whatever its name."""

from typing import TYPE_CHECKING, NamedTuple

from . import places
from .distribution import trust_store
from .errors import ApplyError
from .trust import is_named_by_content

if TYPE_CHECKING:
    from .host import Host
    from .marker import Marker
    from .request import Request
    from .tree import Tree

# Before there was a record, these and no others were laid down.
_UNITS_BEFORE = ("ai-client.service", "ai-client.socket", "ai-client-tcp.socket")
_FOLDERS_BEFORE = (places.HOME, places.OPT, places.STATE_DIR, "/var/cache/ai-client", "/var/log/ai-client")
# Of a deploy whose claim was lost.
_LAUNCHER_BEGINS = b"#!/bin/sh\n# Managed by Ansible. The program finds its release once"
_UNIT_BEGINS = b"# Managed by Ansible"


class Laid(NamedTuple):
    """What was laid down: accounts by name, units by name, all else by path, each in its order."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()

    def union(self, other: "Laid") -> "Laid":
        """All of both."""
        return Laid(*(tuple(sorted({*mine, *theirs})) for mine, theirs in zip(self, other)))


def has_us(tree: "Tree", marker: "Marker | None") -> bool:
    """Whether a deploy was here: its claim says so, or its launcher where the claim was lost."""
    return marker is not None or (tree.read(places.LAUNCHER) or b"").startswith(_LAUNCHER_BEGINS)


def laid_down(tree: "Tree", host: "Host", marker: "Marker | None") -> Laid:
    """What the record says; of a deploy from before there was one, what that can have laid down."""
    if marker is not None and marker.laid is not None:
        return marker.laid
    if not has_us(tree, marker):
        return Laid()
    account = host.account()
    is_ours = account is None or account.home == "/nonexistent"
    names = (places.USER,) if is_ours else ()
    folder = trust_store(tree).folder
    store = [f"{folder}/{name}" for name in tree.names(folder)]
    certificates = tuple(path for path in store if is_named_by_content(path, tree.read(path)))
    return Laid(names, names, _FOLDERS_BEFORE, (), _UNITS_BEFORE, certificates)


def to_lay(tree: "Tree", host: "Host", request: "Request", *, certificates: tuple[str, ...]) -> Laid:
    """What a run is about to lay down: of accounts and folders those that are not there."""
    ids = host.ids()
    keys = [request.keys_folder] if request.upstream_keys else []
    folders = (*_FOLDERS_BEFORE, *request.directories, *filter(None, [request.spool_dir]), *keys)
    units = tuple(request.units) if "deploy" in request.parts else ()
    named = (places.LAUNCHER, request.config_path, request.key_path, request.key_next_path)
    passwords = (request.coordination_path,) if request.coordination_password else ()
    files = (*named, *request.key_files, *passwords)
    return Laid(
        users=(places.USER,) if ids.uid is None else (),
        groups=(places.USER,) if ids.gid is None else (),
        folders=tuple(path for path in folders if tree.look(path).kind == "absent"),
        files=(*files, request.bundle_path) if request.ca_bundle else files,
        units=units,
        certificates=certificates,
    )


def refuse_what_is_not_ours(
    tree: "Tree", host: "Host", request: "Request", *, marker: "Marker | None"
) -> None:
    """Raises ApplyError where a first deploy would take over an account or a unit of somebody else's."""
    if has_us(tree, marker):
        return
    ids = host.ids()
    if not request.adopts_account and (ids.uid is not None or ids.gid is not None):
        raise ApplyError(
            f"user {places.USER}" if ids.uid is not None else f"group {places.USER}",
            "is on this host already and was not made by this project",
            "rename it, or set ai_adopt_account to true: the service then runs as it, and it is never removed",
        )
    for unit in request.units:
        found = tree.look(places.unit_path(unit))
        if found.kind == "file" and not found.content.startswith(_UNIT_BEGINS):
            raise ApplyError(
                places.unit_path(unit),
                "is a unit that was not made by this project",
                "rename it or move it away",
            )
