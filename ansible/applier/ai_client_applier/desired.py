"""From the request to the items that the host must have, in the order in which they are laid down."""

from typing import NamedTuple

from ai_client_applier import places
from ai_client_applier.items import (
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
)
from ai_client_applier.marker import Marker
from ai_client_applier.request import Request
from ai_client_applier.trust import split_bundle

_LAUNCHER = """\
#!/bin/sh
# Managed by Ansible. The program finds its release once, at its start, and keeps to it.
exec {python} -I -S -B {current}/main.py "$@"
"""


class Present(NamedTuple):
    """What of ours is on the host already that the request may no longer want."""

    units: tuple[str, ...]
    trust: tuple[str, ...]
    marker: Marker | None


def desired_items(request: Request, *, digest: str, python: str, present: Present) -> list[Item]:
    """Every item of the request's parts. The key comes before what starts with it, the release before its link."""
    return [
        *_ground(request, present.marker),
        *(_release(digest) if "deploy" in request.parts else []),
        *(_secrets(request) if "secrets" in request.parts else []),
        *(_config(request, present) if "config" in request.parts else []),
        *(_service(request, present, digest=digest, python=python) if "deploy" in request.parts else []),
    ]


def _ground(request: Request, marker: Marker | None) -> list[Item]:
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
        File(places.MARKER, claim_marker(request, marker).encode(), ROOT, 0o600),
        *config,
        *service_owned,
    ]


def claim_marker(request: Request, marker: Marker | None) -> Marker:
    """The marker with every path that this request makes outside our own folders."""
    paths = {path for path in (*request.directories, request.spool_dir) if path and not places.is_ours(path)}
    if request.ca_bundle and not is_below(request.bundle_path, request.directories):
        paths.add(request.bundle_path)
    return Marker(request.claim, tuple(sorted(paths.union(marker.paths if marker else ()))))


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


def _secrets(request: Request) -> list[Item]:
    items: list[Item] = []
    for path, key, effects in (
        (request.key_path, request.key, (RELOAD,)),
        (request.key_next_path, request.key_next, (RELOAD,)),
    ):
        if key:
            items.append(File(path, f"{key.text}\n".encode(), places.USER, 0o640, effects, secret=True))
        else:
            items.append(Absent(path, effects, secret=True))
    return items


def _config(request: Request, present: Present) -> list[Item]:
    certificates = split_bundle(request.ca_bundle)
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


def _service(request: Request, present: Present, *, digest: str, python: str) -> list[Item]:
    launcher = _LAUNCHER.format(python=python, current=places.CURRENT).encode()
    items: list[Item] = [File(places.LAUNCHER, launcher, ROOT, 0o755, (RESTART,))]
    for unit in present.units:
        if unit not in request.units:
            items += [Absent(places.wants_path(unit), (SOCKETS,)), Absent(places.unit_path(unit), (SOCKETS,))]
    for unit, text in request.units.items():
        effects = (DAEMON_RELOAD, SOCKETS if unit.endswith(".socket") else RESTART)
        items.append(File(places.unit_path(unit), text.encode(), ROOT, 0o644, effects))
        items.append(Link(places.wants_path(unit), places.unit_path(unit), (DAEMON_RELOAD,)))
    items.append(Link(places.CURRENT, f"releases/{digest}", (HAND_OVER,)))
    return items
