"""Seals a host that is right in every byte, so that the next look at it is a glance."""

from collections.abc import Iterable

from ai_client_applier import glance, places
from ai_client_applier.host import Host
from ai_client_applier.items import Identity, Ids, Item, Release
from ai_client_applier.observe import leftover_folders, observe, observe_present
from ai_client_applier.plan import make_plan
from ai_client_applier.request import PARTS, Request
from ai_client_applier.response import Response, state_of
from ai_client_applier.tree import Tree


def seal(tree: Tree, host: Host, *, request: Request, items: list[Item], release: str) -> None:
    """Writes the seal. What is sealed is looked at before its bytes are compared once more: an edit at this very moment
    breaks the seal or is seen, and is never sealed."""
    if request.parts != set(PARTS):
        return
    paths = _watched(request, items)
    seen = glance.seen_digest(tree.root, paths=paths, release=release, ids=_numbers(host.ids()))
    observed = observe(tree, host, request=request, present=observe_present(tree), items=items)
    if not make_plan(items, observed, wants_running=True).is_empty:
        return
    content = glance.encode_seal(
        request=request.digest,
        seen=seen,
        paths=paths,
        release=release,
        units=list(request.units),
        socket=request.socket,
        answer=Response(state=state_of(tree, request)).encode(),
    )
    if tree.read(glance.SEAL) != content:
        host.reached("seal")
        tree.write(glance.SEAL, content, gid=0, mode=0o600)


def _numbers(ids: Ids) -> tuple[int | None, ...]:
    return (ids.uid, ids.gid)


def _watched(request: Request, items: Iterable[Item]) -> list[str]:
    paths = {item.path for item in items if not isinstance(item, Identity | Release)}
    records = {places.PENDING, places.JOURNAL, places.GOOD_STATES}
    return sorted(paths | records | set(leftover_folders(request)))
