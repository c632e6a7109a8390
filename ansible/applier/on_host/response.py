"""What the host answers. Nothing in it is secret: it is printed by `-vvv` and kept in results."""

import json
from typing import Any, NamedTuple

from . import journal, release
from .difference import Change
from .marker import read_marker
from .masking import fingerprint, mask
from .request import PROTOCOL, Request
from .tree import Tree

# The answer's line on stdout begins so; whatever a login shell prints does not.
PREFIX = "ai-client-applier: "


class State(NamedTuple):
    """What the host runs with. Digests are hex SHA-256, fingerprints their first 12 digits; empty where absent."""

    release: str = ""
    config_digest: str = ""
    key_fingerprint: str = ""
    key_next_fingerprint: str = ""
    claim: str = ""
    journal: dict[str, Any] | None = None


class Response(NamedTuple):
    """The answer of one run; `needs` names a tree that the controller has to send, and nothing was done.

    `watched` is what was seen of the service after the change, `tried_keys` what the provider said of new keys,
    `notes` what others have done to the host that a reader should know and that is left alone.
    """

    changed: bool = False
    failed: bool = False
    message: str = ""
    changes: tuple[Change, ...] = ()
    actions: tuple[str, ...] = ()
    health: dict[str, Any] | None = None
    rolled_back: bool = False
    needs: str = ""
    state: State = State()
    files: tuple[dict[str, Any], ...] = ()
    watched: dict[str, Any] | None = None
    tried_keys: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def encode(self) -> str:
        """The answer as one line."""
        content = {
            **self._asdict(),
            "protocol": PROTOCOL,
            "message": mask(self.message),
            "changes": [change._asdict() for change in self.changes],
            "state": self.state._asdict(),
        }
        # The controller asks for these files by the very names that it was told.
        return PREFIX + json.dumps({**_printable(content), "files": self.files})


def _printable(content: dict[str, Any]) -> dict[str, Any]:
    """The same, where a name or text on the host is no UTF-8: no reader on the way could print half a character."""
    text = json.dumps(content, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        content = json.loads(text.encode(errors="surrogatepass").decode(errors="replace"))
    return content


def state_of(tree: Tree, request: Request) -> State:
    """Reads what the host runs with."""
    config = tree.read(request.config_path)
    marker = read_marker(tree)
    return State(
        release=release.current(tree),
        config_digest="" if config is None else digest(config),
        key_fingerprint=_key_fingerprint(tree, request.key_path),
        key_next_fingerprint=_key_fingerprint(tree, request.key_next_path),
        claim=marker.claim.name if marker else "",
        journal=journal.newest(tree),
    )


def digest(content: bytes) -> str:
    """SHA-256 in hex."""
    import hashlib

    return hashlib.sha256(content).hexdigest()


def _key_fingerprint(tree: Tree, path: str) -> str:
    content = tree.read(path)
    return fingerprint(content.decode(errors="replace").strip()) if content else ""
