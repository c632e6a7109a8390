"""The folder of packed trees that hosts install from."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from .errors import DeliveryError

INDEX = "index.json"
# In the place of a folder: a look has no build, and what is installed counts as what is wanted.
UNBUILT = "unbuilt"
_BUILD = "build one with tools/artefact/build and give the folder that it prints as ai_artefacts"


class Artefact(NamedTuple):
    """An index of trees: `trees` has file, sha256 and glibc_min by tag; `digest` is of the index's bytes."""

    folder: Path
    version: str
    digest: str
    trees: dict[str, dict[str, Any]]

    def request(self) -> dict[str, dict[str, Any]]:
        """The trees as a host is told of them."""
        return {
            tag: {
                "digest": tree["sha256"],
                "glibc_min": tree.get("glibc_min") or "",
                "size": int(tree.get("size") or 0),
            }
            for tag, tree in self.trees.items()
        }

    def read_tree(self, tag: str) -> bytes:
        """The packed bytes of a tree, checked against the index."""
        path = self.folder / str(self.trees[tag]["file"])
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DeliveryError(str(path), error.strerror or "can't be read", _BUILD) from error
        if hashlib.sha256(content).hexdigest() != self.trees[tag]["sha256"]:
            raise DeliveryError(
                str(path), "has another digest than index.json says", "build the artefact again"
            )
        return content


def read_artefact(folder: str, *, version: str, pin: str) -> Artefact:
    """Reads the index and holds it against the version and the digest that were asked for.

    Raises DeliveryError.
    """
    if not folder:
        raise DeliveryError("ai_artefacts", "is empty", _BUILD)
    path = Path(folder).expanduser() / INDEX
    try:
        content = path.read_bytes()
        index = json.loads(content)
        trees = {str(tag): {**tree, "sha256": str(tree["sha256"])} for tag, tree in index["trees"].items()}
        artefact = Artefact(path.parent, str(index["version"]), hashlib.sha256(content).hexdigest(), trees)
    except OSError as error:
        raise DeliveryError(str(path), error.strerror or "can't be read", _BUILD) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeliveryError(str(path), "is not an index of an artefact", _BUILD) from error
    _check(artefact, version=version, pin=pin)
    return _pinned(artefact, pin) if pin and pin != artefact.digest else artefact


def _check(artefact: Artefact, *, version: str, pin: str) -> None:
    if version and version != artefact.version:
        raise DeliveryError(
            "ai_client_version",
            f"asks for {version}, the artefact in {artefact.folder} is {artefact.version}",
            "give the folder of the wanted version as ai_artefacts, or leave the version empty",
        )
    if pin and pin != artefact.digest and pin not in {tree["sha256"] for tree in artefact.trees.values()}:
        raise DeliveryError(
            "ai_client_digest",
            f"pins {pin[:12]}…, which is neither the artefact in {artefact.folder} nor one of its trees",
            "give the folder of the pinned build as ai_artefacts",
        )


def _pinned(artefact: Artefact, pin: str) -> Artefact:
    """The artefact with the pinned tree alone: a host that needs another one refuses."""
    return artefact._replace(
        trees={tag: tree for tag, tree in artefact.trees.items() if tree["sha256"] == pin}
    )
