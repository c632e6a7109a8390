"""Records a host that is right in every byte, so that the next look at it is the unchanged check alone."""

import json
from collections.abc import Iterable

from . import places, unchanged_check
from .host import Host
from .items import Identity, Ids, Item, Release
from .observe import leftover_folders, observe, observe_present
from .plan import make_plan
from .request import PARTS, Request
from .response import Response, state_of
from .sandbox import folders
from .tree import Tree


def record_unchanged(
    tree: Tree, host: Host, *, request: Request, items: list[Item], release: str, notes: tuple[str, ...]
) -> None:
    """Writes the record. What it covers is looked at before its bytes are compared once more: an edit at this very
    moment breaks the record or is seen, and is never part of one."""
    if request.parts != set(PARTS):
        return
    paths = _watched(request, items)
    seen = unchanged_check.seen_digest(tree.root, paths=paths, release=release, ids=_numbers(host.ids()))
    observed = observe(tree, host, request=request, present=observe_present(tree, host), items=items)
    if not make_plan(items, observed, wants_running=True).is_empty:
        return
    content = unchanged_check.encode_record(
        request=request.digest,
        seen=seen,
        paths=paths,
        release=release,
        units=list(request.units),
        socket=request.socket,
        answer=Response(state=state_of(tree, request), notes=notes).encode(),
    )
    if tree.read(unchanged_check.RECORD) != content:
        host.reached("record that nothing is to change")
        tree.write(unchanged_check.RECORD, content, gid=0, mode=0o600)
    files = unchanged_check.files_digest(tree.root, paths=paths, release=release)
    told = json.dumps({"files": files, "paths": paths, "release": release}).encode()
    if tree.read(unchanged_check.SEALED) != told:
        tree.write(unchanged_check.SEALED, told, gid=host.ids().gid or 0, mode=0o640)


def _numbers(ids: Ids) -> tuple[int | None, ...]:
    return (ids.uid, ids.gid)


def _watched(request: Request, items: Iterable[Item]) -> list[str]:
    paths = {item.path for item in items if not isinstance(item, (Identity, Release))}
    records = {places.PENDING, places.JOURNAL, places.GOOD_STATES}
    return sorted(paths | records | set(leftover_folders(request)) | set(folders(request.units)))
