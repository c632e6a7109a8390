"""The claim that a host carries, and the rules about it."""

import json
from typing import NamedTuple

from ai_client_applier import places
from ai_client_applier.errors import ApplyError
from ai_client_applier.items import Found
from ai_client_applier.request import Claim
from ai_client_applier.tree import Tree


class Marker(NamedTuple):
    """Who owns the host, and which paths outside our own folders we made here."""

    claim: Claim
    paths: tuple[str, ...]

    def encode(self) -> bytes:
        """As the file holds it."""
        content = {"claim": self.claim.name, "owner": self.claim.owner, "paths": list(self.paths)}
        return (json.dumps(content, indent=1) + "\n").encode()


def read_marker(tree: Tree) -> Marker | None:
    """The host's marker; None where it has none."""
    content = tree.read(places.MARKER)
    if content is None:
        return None
    try:
        raw = json.loads(content)
        return Marker(Claim(raw["claim"], raw["owner"]), tuple(raw["paths"]))
    except (ValueError, KeyError, TypeError) as error:
        remedy = "find out whose host this is, then remove the file"
        raise ApplyError(places.MARKER, "does not say whose this host is", remedy) from error


def check_owner(marker: Marker | None, claim: Claim) -> None:
    """Refuses a host of another owner; another claim of the same owner is taken over."""
    if marker is not None and marker.claim.owner != claim.owner:
        raise ApplyError(
            places.MARKER,
            f"this host belongs to {marker.claim.owner} (claim {marker.claim.name}), not to {claim.owner}",
            f"decommission it there first, or set ai_claim_owner to {marker.claim.owner}",
        )


def other_holder(marker: Marker | None, claim: Claim) -> str:
    """The claim that holds the host by now, where that is another one: what is there is not this claim's to remove."""
    return marker.claim.name if marker is not None and marker.claim.name != claim.name else ""


def check_folders(found: dict[str, Found], marker: Marker | None) -> None:
    """Refuses a folder of another name than ours that holds what we did not put there: a decommission removes it."""
    known = marker.paths if marker else ()
    for path, there in found.items():
        if (
            there.kind == "directory"
            and not there.is_empty
            and not places.is_ours(path)
            and path not in known
        ):
            raise ApplyError(
                path, "is there already and holds files that are not ours", "name a folder of its own"
            )
