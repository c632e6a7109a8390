"""What a host can be asked to have, one tuple an item, and what was found in its place."""

from typing import NamedTuple, Union

ROOT = "root"

# What must follow when an item changed.
TRUST = "refresh trust store"
DAEMON_RELOAD = "daemon-reload"
SOCKETS = "restart sockets"
RESTART = "restart"
HAND_OVER = "hand over to the release"
RELOAD = "reload"


class Identity(NamedTuple):
    """The system user and group."""

    path: str


class Directory(NamedTuple):
    """A folder of ours."""

    path: str
    owner: str
    group: str
    mode: int


class File(NamedTuple):
    """A file with its bytes. Of a secret one only a fingerprint is ever shown."""

    path: str
    content: bytes
    group: str
    mode: int
    effects: tuple[str, ...] = ()
    secret: bool = False


class Link(NamedTuple):
    """A symbolic link."""

    path: str
    target: str
    effects: tuple[str, ...] = ()


class Absent(NamedTuple):
    """A file or link that must not be here."""

    path: str
    effects: tuple[str, ...] = ()
    secret: bool = False


class Release(NamedTuple):
    """An unpacked tree, whole and unchanged since it was written."""

    path: str
    digest: str
    effects: tuple[str, ...] = ()


class SetAside(NamedTuple):
    """A file of somebody else's that must not take effect: it is renamed, and nothing of it is lost."""

    path: str
    reason: str
    effects: tuple[str, ...] = ()


Item = Union[Identity, Directory, File, Link, Absent, Release, SetAside]


class Found(NamedTuple):
    """What is at a path: `kind` is absent, file, directory, link or other (a device, a pipe)."""

    kind: str
    content: bytes = b""
    target: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0
    is_empty: bool = False


NOTHING = Found("absent")


class Ids(NamedTuple):
    """The numbers of our user and group; None where it does not exist."""

    uid: int | None
    gid: int | None

    def owner(self, name: str) -> int | None:
        """The uid of `root` or of our user."""
        return 0 if name == ROOT else self.uid

    def group(self, name: str) -> int | None:
        """The gid of `root` or of our group."""
        return 0 if name == ROOT else self.gid
