"""What differs between the items that are wanted and what was found, as text that may be shown."""

from typing import NamedTuple

from .items import Absent, Directory, File, Found, Identity, Ids, Item, Link, Release, SetAside
from .masking import fingerprint, mask
from .places import ASIDE_SUFFIX

_SHOWN_CHARACTERS = 64 * 1024


class Change(NamedTuple):
    """One thing that is to change: `before` and `after` hold no secret."""

    path: str
    before: str
    after: str


def compare(item: Item, found: Found, ids: Ids) -> Change | None:
    """The change that an item needs; None where all is well. `found` of a release is a file where it is intact."""
    if isinstance(item, Identity):
        return _identity(item, ids)
    if isinstance(item, Release):
        return _release(item, found)
    if isinstance(item, Directory):
        return _directory(item, found, ids)
    if isinstance(item, File):
        return _file(item, found, ids)
    return _link_or_nothing(item, found)


def _identity(item: Identity, ids: Ids) -> Change | None:
    if ids.uid is not None and ids.gid is not None:
        return None
    return Change(item.path, "", "system user and group\n")


def _release(item: Release, found: Found) -> Change | None:
    if found.kind == "file":
        return None
    before = "absent\n" if found.kind == "absent" else "changed since it was written\n"
    return Change(item.path, before, "unpacked and compiled\n")


def _link_or_nothing(item: Link | Absent | SetAside, found: Found) -> Change | None:
    if isinstance(item, SetAside):
        after = f"set aside as {item.path}{ASIDE_SUFFIX}: {mask(item.reason)}\n"
        return None if found.kind == "absent" else Change(item.path, _shown(found, secret=False), after)
    if isinstance(item, Absent):
        return None if found.kind == "absent" else Change(item.path, _shown(found, secret=item.secret), "")
    if found.kind == "link" and found.target == item.target:
        return None
    return Change(item.path, _shown(found, secret=False), f"link to {item.target}\n")


def _directory(item: Directory, found: Found, ids: Ids) -> Change | None:
    wanted = _rights(item.owner, item.group, item.mode)
    if found.kind != "directory":
        return Change(item.path, _shown(found, secret=False), f"folder, {wanted}\n")
    if _has_rights(found, owner=item.owner, group=item.group, mode=item.mode, ids=ids):
        return None
    return Change(item.path, f"folder, {_found_rights(found, ids)}\n", f"folder, {wanted}\n")


def _file(item: File, found: Found, ids: Ids) -> Change | None:
    has_rights = _has_rights(found, owner="root", group=item.group, mode=item.mode, ids=ids)
    if found.kind == "file" and found.content == item.content and has_rights:
        return None
    before = _shown(found, secret=item.secret)
    after = _content(item.content, secret=item.secret)
    if found.kind == "file" and not has_rights:
        before = f"{_found_rights(found, ids)}\n{before}"
        after = f"{_rights('root', item.group, item.mode)}\n{after}"
    if before == after:
        # The difference lies in what is masked or in bytes that show alike.
        after += "(differs in a part that is not shown)\n"
    return Change(item.path, before, after)


def _has_rights(found: Found, *, owner: str, group: str, mode: int, ids: Ids) -> bool:
    return (found.uid, found.gid, found.mode) == (ids.owner(owner), ids.group(group), mode)


def _rights(owner: str, group: str, mode: int) -> str:
    return f"owner {owner}:{group}, mode {mode:04o}"


def _found_rights(found: Found, ids: Ids) -> str:
    owner = {0: "root", ids.uid: "ai-client"}.get(found.uid, str(found.uid))
    group = {0: "root", ids.gid: "ai-client"}.get(found.gid, str(found.gid))
    return _rights(owner, group, found.mode)


def _shown(found: Found, *, secret: bool) -> str:
    if found.kind == "file":
        return _content(found.content, secret=secret)
    if found.kind == "absent":
        return ""
    return f"link to {mask(found.target)}\n" if found.kind == "link" else f"a {found.kind}\n"


def _content(content: bytes, *, secret: bool) -> str:
    text = content.decode(errors="backslashreplace")
    if secret:
        return f"key {fingerprint(text.strip())}\n" if text.strip() else "empty\n"
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "\n(cut here)\n"
    return mask(text)
