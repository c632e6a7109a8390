"""What of a host is to be removed, path by path, and what stays because others put it there."""

import os
import re
import stat
from collections.abc import Iterator
from typing import Callable, NamedTuple, Optional

from . import places
from .distribution import trust_store
from .record import Laid
from .tree import Tree

_PARTIAL = re.escape(places.PARTIAL_PREFIX) + ".*"
# In folders that others may use as well, these alone are ours.
_CONFIG = re.compile(
    rf"claim\.json|releases\.jsonl|good\.json|pending\.json|seal|sealed\.json|ai-client\.conf|key|key\.next|ca-bundle\.pem|{_PARTIAL}"
)
_OPT = re.compile(rf"current|bin/ai-client|releases/[0-9a-f]{{64}}(\.json)?|(bin/|releases/)?{_PARTIAL}")
_OPT_FOLDERS = frozenset({"bin", "releases"})
_DROP_INS = tuple(f"{places.UNIT_DIR}/{unit}.d" for unit in (places.SERVICE, "ai-client.socket"))

# Whether a path, relative to its folder, is ours with all in it; None for a folder that has to be looked into.
Judge = Callable[[str], Optional[bool]]


class Share(NamedTuple):
    """Paths of ours and of others in a folder; the folder itself is ours where nothing else is in it."""

    ours: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def shares(tree: Tree, laid: Laid, *, uid: int | None, paths: tuple[str, ...]) -> list[Share]:
    """What a decommission finds in every place outside of the folder with the claim.

    Args:
        tree: the host's files.
        laid: what is on record.
        uid: the service's user; None where there is none.
        paths: folders and files outside of our own folders, of the claim.
    """
    found = [Share((path,)) for unit in laid.units for path in _of_unit(tree, unit)]
    found += [share(tree, folder, lambda _: False) for folder in _DROP_INS]
    found.append(share(tree, places.OPT, _judge_opt))
    found += [Share((path,)) for path in (places.RUN_DIR, *laid.certificates)]
    folders = (places.STATE_DIR, "/var/cache/ai-client", "/var/log/ai-client", *paths)
    for folder in dict.fromkeys(folders):
        is_config = tree.look(f"{folder}/ai-client.conf").kind == "file"
        judge = judge_config(folder, laid) if is_config else _of_the_service(tree, folder, laid, uid)
        found.append(share(tree, folder, judge))
    found += [Share((path,)) for path in _left_by_killed_runs(tree)]
    return found


def _of_unit(tree: Tree, unit: str) -> Iterator[str]:
    wants, path = places.wants_path(unit), places.unit_path(unit)
    if tree.look(wants).target in (path, f"../{unit}"):
        yield wants
    yield path


def _left_by_killed_runs(tree: Tree) -> Iterator[str]:
    for folder in (places.UNIT_DIR, trust_store(tree).folder):
        for name in tree.names(folder):
            if places.is_of_a_killed_run(name):
                yield f"{folder}/{name}"


def share(tree: Tree, folder: str, judge: Judge) -> Share:
    """Divides what is in a folder; something else in its place is ours whole, as a link or a file in it would be."""
    if tree.look(folder).kind != "directory":
        return Share((folder,))
    ours, others = _divide(tree, folder, "", judge)
    return Share((folder,)) if not others else Share(tuple(ours), tuple(others))


def _divide(tree: Tree, folder: str, prefix: str, judge: Judge) -> tuple[list[str], list[str]]:
    ours: list[str] = []
    others: list[str] = []
    for name in tree.names(f"{folder}/{prefix}".rstrip("/")):
        path, verdict = f"{folder}/{prefix}{name}", judge(prefix + name)
        if verdict is None and tree.look(path).kind == "directory":
            mine, theirs = _divide(tree, folder, f"{prefix}{name}/", judge)
            ours += mine if theirs else [path]
            others += theirs
        else:
            (ours if verdict else others).append(path)
    return ours, others


def judge_config(folder: str, laid: Laid) -> Judge:
    """In a folder with a configuration, ours is what is on record, and what every release writes."""

    def judge(name: str) -> bool | None:
        path = f"{folder}/{name}"
        is_ours = path in laid.files or _CONFIG.fullmatch(name.rpartition("/")[2]) is not None
        return None if path in laid.folders else is_ours

    return judge


def ours_in(tree: Tree, folder: str, judge: Judge) -> list[str]:
    """Paths of ours in a folder, without the folder itself."""
    return _divide(tree, folder, "", judge)[0]


def _judge_opt(name: str) -> bool | None:
    return None if name in _OPT_FOLDERS else _OPT.fullmatch(name) is not None


def _of_the_service(tree: Tree, folder: str, laid: Laid, uid: int | None) -> Judge:
    """In a folder that we made, all but what other accounts own; in one that was there, what the service owns."""
    is_made = folder in laid.folders
    numbers = {uid} if uid is not None else set()

    def judge(name: str) -> bool | None:
        seen = os.lstat(tree.real(f"{folder}/{name}"))
        if stat.S_ISDIR(seen.st_mode):
            return None
        return seen.st_uid in numbers or (is_made and seen.st_uid == 0)

    return judge
