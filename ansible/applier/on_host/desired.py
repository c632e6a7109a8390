"""From the request to the items that the host must have, in the order in which they are laid down."""

from typing import NamedTuple

from . import places
from .distribution import TrustStore, known_to
from .items import (
    DAEMON_RELOAD,
    HAND_OVER,
    RELOAD,
    RESTART,
    ROOT,
    SOCKETS,
    TRUST,
    Absent,
    Directory,
    File,
    Identity,
    Item,
    Link,
    Release,
    SetAside,
)
from .marker import Marker
from .record import Laid
from .request import Request
from .sandbox import DropIn
from .trust import split_bundle

_LAUNCHER = """\
#!/bin/sh
# Managed by Ansible. The program finds its release once, at its start, and keeps to it.
exec {python} -I -S -B {current}/main.py "$@"
"""


class Present(NamedTuple):
    """What of ours is on the host already that the request may no longer want."""

    store: TrustStore
    units: tuple[str, ...]
    trust: tuple[str, ...]
    marker: Marker | None
    laid: Laid
    drop_ins: tuple[DropIn, ...] = ()


class Suited(NamedTuple):
    """What of the request suits this host: its release, the interpreter, and how new its systemd is."""

    digest: str
    python: str
    systemd: int


def desired_items(request: Request, *, suited: Suited | None, present: Present, to_lay: Laid) -> list[Item]:
    """Every item of the request's parts; `suited` is there where it deploys.

    The key comes before what starts with it, the release before its link.
    """
    return [
        *_ground(request, present, to_lay),
        *(_release(suited.digest) if suited else []),
        *(_secrets(request, present) if "secrets" in request.parts else []),
        *(_config(request, present) if "config" in request.parts else []),
        *(_service(request, present, suited) if suited else []),
    ]


def _ground(request: Request, present: Present, to_lay: Laid) -> list[Item]:
    """What every part stands on: the user, the claim and the folders."""
    directories = request.directories
    service_owned = [
        Directory(path, places.USER, places.USER, 0o750)
        for path in (directories.cache, directories.log, places.STATE_DIR, *filter(None, [request.spool_dir]))
    ]
    config = (
        [] if directories.config == places.HOME else [Directory(directories.config, ROOT, places.USER, 0o750)]
    )
    return [
        Identity(f"user {places.USER}"),
        Directory(places.HOME, ROOT, places.USER, 0o750),
        File(places.MARKER, claim_marker(request, present, to_lay).encode(), ROOT, 0o600),
        *config,
        *service_owned,
    ]


def claim_marker(request: Request, present: Present, to_lay: Laid) -> Marker:
    """The marker with all that is on record and what this request adds to it."""
    marker = present.marker
    paths = {path for path in (*request.directories, request.spool_dir) if path and not places.is_ours(path)}
    if request.ca_bundle and not is_below(request.bundle_path, request.directories):
        paths.add(request.bundle_path)
    lineage = request.claim.lineage or (marker.claim.lineage if marker else "")
    return Marker(
        request.claim._replace(lineage=lineage),
        tuple(sorted(paths.union(marker.paths if marker else ()))),
        needs_consent=request.needs_consent,
        laid=present.laid.union(to_lay),
    )


def is_below(path: str, folders: tuple[str, ...]) -> bool:
    """Whether a path lies in one of the folders."""
    return any(path.startswith(f"{folder}/") for folder in folders)


def _release(digest: str) -> list[Item]:
    return [
        Directory(places.OPT, ROOT, ROOT, 0o755),
        Directory(f"{places.OPT}/bin", ROOT, ROOT, 0o755),
        Directory(places.RELEASES, ROOT, ROOT, 0o755),
        Release(places.release_path(digest), digest),
    ]


def _secrets(request: Request, present: Present) -> list[Item]:
    items: list[Item] = []
    for path, key, effects in (
        (request.key_path, request.key, (RELOAD,)),
        (request.key_next_path, request.key_next, (RELOAD,)),
    ):
        if key:
            items.append(File(path, f"{key.text}\n".encode(), places.USER, 0o640, effects, secret=True))
        else:
            items.append(Absent(path, effects, secret=True))
    return items + _upstream_secrets(request, present) + _coordination_secret(request, present)


def _coordination_secret(request: Request, present: Present) -> list[Item]:
    """The password for the engine that lends quota; a file there that we did not lay down stays."""
    path, password = request.coordination_path, request.coordination_password
    if password:
        return [File(path, f"{password.text}\n".encode(), places.USER, 0o640, (RELOAD,), secret=True)]
    return [Absent(path, (RELOAD,), secret=True)] if path in present.laid.files else []


def _upstream_secrets(request: Request, present: Present) -> list[Item]:
    """Each upstream's key in a file of its own; one that was laid down for an upstream that is gone goes."""
    folder = request.keys_folder
    texts = request.key_files
    items: list[Item] = [Directory(folder, ROOT, places.USER, 0o750)] if texts else []
    for path, key in texts.items():
        items.append(File(path, f"{key.text}\n".encode(), places.USER, 0o640, (RELOAD,), secret=True))
    laid = [path for path in present.laid.files if path.startswith(f"{folder}/") and path not in texts]
    items += [Absent(path, (RELOAD,), secret=True) for path in laid]
    return items


def _config(request: Request, present: Present) -> list[Item]:
    certificates = split_bundle(request.ca_bundle, folder=present.store.folder)
    items: list[Item] = [Absent(path, (TRUST,)) for path in present.trust if path not in certificates]
    items += [File(path, content, ROOT, 0o644, (TRUST,)) for path, content in certificates.items()]
    if certificates:
        items.append(
            File(request.bundle_path, b"".join(certificates.values()), places.USER, 0o640, (RELOAD,))
        )
    else:
        items.append(Absent(f"{request.directories.config}/ca-bundle.pem", (RELOAD,)))
    items.append(File(request.config_path, request.config.encode(), places.USER, 0o640, (RELOAD,)))
    return items


def _service(request: Request, present: Present, suited: Suited) -> list[Item]:
    launcher = _LAUNCHER.format(python=suited.python, current=places.CURRENT).encode()
    items: list[Item] = [File(places.LAUNCHER, launcher, ROOT, 0o755, (RESTART,))]
    for unit in present.units:
        if unit not in request.units:
            items += [Absent(places.wants_path(unit), (SOCKETS,)), Absent(places.unit_path(unit), (SOCKETS,))]
    for unit, text in request.units.items():
        effects = (DAEMON_RELOAD, SOCKETS if unit.endswith(".socket") else RESTART)
        known = known_to(suited.systemd, text)
        items.append(File(places.unit_path(unit), known.encode(), ROOT, 0o644, effects))
        items.append(Link(places.wants_path(unit), places.unit_path(unit), (DAEMON_RELOAD,)))
    for drop_in in present.drop_ins:
        if drop_in.is_drift:
            what, effect = ("socket", SOCKETS) if ".socket.d/" in drop_in.path else ("sandbox", RESTART)
            reason = f"it weakens the service's {what} ({', '.join(drop_in.weakens)})"
            items.append(SetAside(drop_in.path, reason, (DAEMON_RELOAD, effect)))
    items.append(Link(places.CURRENT, f"releases/{suited.digest}", (HAND_OVER,)))
    return items
