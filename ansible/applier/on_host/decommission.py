"""Takes everything of ours off the host, the claim last; and hands out ledger and audit log before."""

import base64
import os
import re
import stat
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import places
from .apply import Run
from .desired import Present
from .difference import Change
from .distribution import trust_store
from .errors import ApplyError
from .marker import check_consent, check_owner, other_holder, read_marker
from .observe import observe_present
from .record import has_us, laid_down
from .removal import judge_config, ours_in, share, shares
from .response import Response
from .tree import Tree

# Of what stays, so many are named.
_NAMED = 20
_COLLECTED = re.compile(r"(?:ledger|audit)[\w.-]*")


class Ours(NamedTuple):
    """What of a host a decommission removes: `others` are paths of other people beside ours, which stay."""

    units: tuple[str, ...]
    trust: tuple[str, ...]
    paths: tuple[str, ...]
    others: tuple[str, ...]
    user: bool
    group: bool


def decommission(run: Run) -> Response:
    """Removes what is on record: service, releases, files, keys, user and group; a second run finds nothing to do."""
    present = observe_present(run.tree, run.host)
    check_owner(present.marker, run.request.claim)
    holder = other_holder(present.marker, run.request.claim)
    if holder:
        return Response(message=f"held by claim {holder} of the same owner: left alone")
    check_consent(present.marker, run.request.consent)
    is_laid = has_us(run.tree, present.marker)
    ours = _ours(run, present, is_laid=is_laid)
    changes = [Change(path, f"{run.tree.look(path).kind}\n", "") for path in ours.paths]
    if ours.user or ours.group:
        changes.append(Change(f"user {places.USER}", "system user and group\n", ""))
    message = _left_alone(ours.others)
    if not run.request.check and (changes or run.tree.look(places.HOME).kind != "absent"):
        _remove(run, ours, is_laid=is_laid)
    return Response(changed=bool(changes), changes=tuple(changes), message=message)


def _ours(run: Run, present: Present, *, is_laid: bool) -> Ours:
    ids, laid = run.host.ids(), present.laid
    if not is_laid:
        return Ours((), (), (), (), user=False, group=False)
    paths = present.marker.paths if present.marker else ()
    found = shares(run.tree, laid, uid=ids.uid, paths=paths)
    home = share(run.tree, places.HOME, judge_config(places.HOME, laid))
    return Ours(
        units=present.units,
        trust=present.trust,
        paths=tuple(path for part in found for path in part.ours if run.tree.look(path).kind != "absent"),
        others=tuple(path for part in (*found, home) for path in part.others),
        user=ids.uid is not None and places.USER in laid.users,
        group=ids.gid is not None and places.USER in laid.groups,
    )


def _left_alone(others: tuple[str, ...]) -> str:
    if not others:
        return ""
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return f"left alone, because others put them there: {', '.join(others[:_NAMED])}{more}"


def _remove(run: Run, ours: Ours, *, is_laid: bool) -> None:
    _stop(run, ours.units)
    for path in ours.paths:
        run.host.reached(f"remove {path}")
        run.tree.remove_all(path)
    _after_removal(run, units=ours.units, trust=ours.trust)
    if ours.user or ours.group:
        run.host.reached("remove the user")
        run.host.remove_identity(run.host.ids(), user=ours.user, group=ours.group)
    _remove_home(run, is_laid=is_laid)


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
        run.host.refresh_trust(trust_store(run.tree).program)


def _remove_home(run: Run, *, is_laid: bool) -> None:
    """The claim goes last, so that a run that is killed before is still refused or ended by the right owner."""
    if is_laid:
        laid = laid_down(run.tree, run.host, read_marker(run.tree))
        for path in ours_in(run.tree, places.HOME, judge_config(places.HOME, laid)):
            if path != places.MARKER:
                run.host.reached(f"remove {path}")
                run.tree.remove_all(path)
        run.host.reached("remove the claim")
        run.tree.remove(places.MARKER)
        _give_back(run)
    run.tree.remove_empty(places.HOME)


def _give_back(run: Run) -> None:
    """A folder with files of others stays, and belongs to no group whose number somebody gets next."""
    if run.tree.look(places.HOME).kind == "directory" and run.tree.names(places.HOME):
        run.tree.directory(places.HOME, uid=0, gid=0, mode=0o750)


def collect(run: Run) -> Response:
    """Lists what is to be kept of a host, or reads a piece of one of these files."""
    present = observe_present(run.tree, run.host)
    check_owner(present.marker, run.request.claim)
    if other_holder(present.marker, run.request.claim):
        return Response()
    check_consent(present.marker, run.request.consent)
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
    marker = read_marker(run.tree)
    folder, _, name = path.rpartition("/")
    if folder not in _folders(marker.paths if marker else ()) or not _COLLECTED.fullmatch(name):
        raise ApplyError(path, "is not a ledger or audit log of this project", "ask for a path from the list")
    parent = os.open(run.tree.real(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, dir_fd=parent), "rb") as file:
            file.seek(offset)
            content = file.read(int(wanted["size"]))
    finally:
        os.close(parent)
    return {"path": path, "offset": offset, "data": base64.b64encode(zlib.compress(content)).decode()}
