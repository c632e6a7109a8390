"""What is on the host now, gathered without changing anything."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from . import places, release
from .desired import Present
from .distribution import TRUST_STORES, trust_store
from .host import Host, UnitState
from .items import NOTHING, Found, Identity, Ids, Item, Release
from .marker import read_marker
from .record import laid_down
from .request import Request
from .tree import Tree


class Pending(NamedTuple):
    """What a run that did not end left to do. `run` is its name."""

    run: str
    effects: tuple[str, ...]


class Observed(NamedTuple):
    """The host's present state, as far as the wanted items ask for it."""

    ids: Ids
    found: dict[str, Found]
    units: dict[str, UnitState]
    pending: Pending | None
    leftovers: tuple[str, ...]


def observe_present(tree: Tree, host: Host) -> Present:
    """Which of our units, certificates and claims are on the host, by record."""
    marker = read_marker(tree)
    laid = laid_down(tree, host, marker)
    store = trust_store(tree)
    units, certificates = set(tree.names(places.UNIT_DIR)), set(tree.names(store.folder))
    return Present(
        store=store,
        units=tuple(unit for unit in laid.units if unit in units),
        trust=tuple(path for path in laid.certificates if path.rpartition("/")[2] in certificates),
        marker=marker,
        laid=laid,
    )


def observe(tree: Tree, host: Host, *, request: Request, present: Present, items: Iterable[Item]) -> Observed:
    """What is where the items belong, and how the units are; those of the host where the request names none."""
    return Observed(
        ids=host.ids(),
        found={item.path: look(tree, item) for item in items},
        units=host.units(tuple(request.units) or present.units),
        pending=read_pending(tree),
        leftovers=tuple(_leftovers(tree, request)),
    )


def look(tree: Tree, item: Item) -> Found:
    """What is at an item's path; of a release, a file where it is intact."""
    if isinstance(item, Identity):
        return NOTHING
    if not isinstance(item, Release):
        return tree.look(item.path)
    if release.is_intact(tree, item.digest):
        return Found("file")
    return Found("other") if tree.look(item.path).kind != "absent" else NOTHING


def read_pending(tree: Tree) -> Pending | None:
    """What an unfinished run left to do; None where the last one ended."""
    content = tree.read(places.PENDING)
    if content is None:
        return None
    try:
        raw = json.loads(content)
        return Pending(str(raw["run"]), tuple(raw["effects"]))
    except (ValueError, KeyError, TypeError):
        # Whatever it was, doing everything again is safe.
        return Pending("", ("daemon-reload", "restart"))


def leftover_folders(request: Request) -> list[str]:
    """Folders in which a run that was killed may have left something."""
    return sorted(
        {
            *(places.HOME, request.directories.config, places.OPT, f"{places.OPT}/bin", places.RELEASES),
            *(store.folder for store in TRUST_STORES),
            *(places.UNIT_DIR, request.bundle_path.rpartition("/")[0]),
            *(places.wants_path(unit).rpartition("/")[0] for unit in request.units),
        }
    )


def _leftovers(tree: Tree, request: Request) -> Iterable[str]:
    for folder in leftover_folders(request):
        for name in tree.names(folder):
            if name.startswith(places.PARTIAL_PREFIX):
                yield f"{folder}/{name}"
