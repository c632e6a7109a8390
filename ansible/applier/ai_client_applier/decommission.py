"""Takes everything of ours off the host, the claim last; and hands out ledger and audit log before."""

import base64
import os
import re
import stat
import zlib
from collections.abc import Iterator
from typing import Any

from ai_client_applier import places
from ai_client_applier.apply import Run
from ai_client_applier.difference import Change
from ai_client_applier.errors import ApplyError
from ai_client_applier.marker import check_owner, other_holder
from ai_client_applier.observe import observe_present
from ai_client_applier.response import Response
from ai_client_applier.tree import Tree

_COLLECTED = re.compile(r"(?:ledger|audit)[\w.-]*")
_DROP_INS = tuple(f"{places.UNIT_DIR}/{unit}.d" for unit in (places.SERVICE, "ai-client.socket"))


def decommission(run: Run) -> Response:
    """Removes service, releases, files, keys, user and group; a second run finds nothing to do."""
    tree = run.tree
    present = observe_present(tree)
    check_owner(present.marker, run.request.claim)
    if holder := other_holder(present.marker, run.request.claim):
        return Response(message=f"held by claim {holder} of the same owner: left alone")
    is_laid = present.marker is not None or tree.look(places.OPT).kind != "absent" or bool(present.units)
    paths = [path for path in _paths(run, custom=present.marker.paths if present.marker else ()) if is_laid]
    doomed = [path for path in paths if tree.look(path).kind != "absent"]
    ids = run.host.ids()
    has_identity = ids.uid is not None or ids.gid is not None
    changes = [Change(path, f"{tree.look(path).kind}\n", "") for path in doomed]
    if has_identity:
        changes.append(Change(f"user {places.USER}", "system user and group\n", ""))
    if run.request.check or not (changes or tree.look(places.HOME).kind != "absent"):
        return Response(changed=bool(changes), changes=tuple(changes))
    _stop(run, present.units)
    for path in doomed:
        run.host.reached(f"remove {path}")
        tree.remove_all(path)
    _after_removal(run, units=present.units, trust=present.trust)
    if has_identity:
        run.host.reached("remove the user")
        run.host.remove_identity(ids)
    _remove_home(run, is_laid=is_laid)
    return Response(changed=bool(changes), changes=tuple(changes))


def _paths(run: Run, *, custom: tuple[str, ...]) -> Iterator[str]:
    """Everything that a deploy may have laid down outside of the folder with the claim."""
    present = observe_present(run.tree)
    for unit in present.units:
        yield from (places.wants_path(unit), places.unit_path(unit))
    yield from _DROP_INS
    yield from (places.OPT, places.RUN_DIR, *present.trust)
    yield from (places.STATE_DIR, "/var/cache/ai-client", "/var/log/ai-client", *custom)
    for folder in (places.UNIT_DIR, places.TRUST_DIR):
        for name in run.tree.names(folder):
            if name.startswith(places.PARTIAL_PREFIX):
                yield f"{folder}/{name}"


def _stop(run: Run, units: tuple[str, ...]) -> None:
    if not units:
        return
    run.host.reached("stop the service")
    # Sockets first, or the next connection would start the service again.
    outcome = run.host.systemctl("stop", *sorted(units, key=lambda unit: unit.endswith(".service")))
    if outcome.status != 0:
        raise ApplyError(places.SERVICE, f"can't be stopped: {outcome.tail}", "stop it by hand and run again")


def _after_removal(run: Run, *, units: tuple[str, ...], trust: tuple[str, ...]) -> None:
    if units:
        run.host.systemctl("daemon-reload")
        run.host.systemctl("reset-failed", *units)
        for unit in units:
            run.tree.remove_empty(places.wants_path(unit).rpartition("/")[0])
    if trust:
        run.host.refresh_trust()


def _remove_home(run: Run, *, is_laid: bool) -> None:
    """The claim goes last, so that a run that is killed before is still refused or ended by the right owner."""
    if is_laid:
        for name in run.tree.names(places.HOME):
            path = f"{places.HOME}/{name}"
            if path != places.MARKER:
                run.host.reached(f"remove {path}")
                run.tree.remove_all(path)
        run.host.reached("remove the claim")
        run.tree.remove(places.MARKER)
    run.tree.remove_empty(places.HOME)


def collect(run: Run) -> Response:
    """Lists what is to be kept of a host, or reads a piece of one of these files."""
    present = observe_present(run.tree)
    check_owner(present.marker, run.request.claim)
    if other_holder(present.marker, run.request.claim):
        return Response()
    wanted = run.request.collect
    if "path" in wanted:
        return Response(files=(_piece(run, wanted),))
    if not run.request.check:
        # A ledger at rest: nothing is in its write-ahead log that the file lacks.
        _stop(run, present.units)
    custom = present.marker.paths if present.marker else ()
    return Response(files=tuple(_list(run.tree, _folders(custom))))


def _folders(custom: tuple[str, ...]) -> tuple[str, ...]:
    return (places.STATE_DIR, "/var/cache/ai-client", "/var/log/ai-client", *custom)


def _list(tree: Tree, folders: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for folder in folders:
        for name in tree.names(folder):
            path = f"{folder}/{name}"
            status = os.lstat(tree.real(path))
            if _COLLECTED.fullmatch(name) and stat.S_ISREG(status.st_mode):
                yield {"path": path, "size": status.st_size}


def _piece(run: Run, wanted: dict[str, Any]) -> dict[str, Any]:
    """A part of a file as base64 of zlib. The folder is the service's, so a link in it is never followed."""
    path, offset = str(wanted["path"]), int(wanted["offset"])
    marker = observe_present(run.tree).marker
    folder, _, name = path.rpartition("/")
    if folder not in _folders(marker.paths if marker else ()) or not _COLLECTED.fullmatch(name):
        raise ApplyError(path, "is no ledger or audit log of ours", "ask for a path from the list")
    parent = os.open(run.tree.real(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, dir_fd=parent), "rb") as file:
            file.seek(offset)
            content = file.read(int(wanted["size"]))
    finally:
        os.close(parent)
    return {"path": path, "offset": offset, "data": base64.b64encode(zlib.compress(content)).decode()}
