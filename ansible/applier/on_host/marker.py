"""The claim that a host carries, and the rules about it."""

import json
from typing import NamedTuple

from . import places
from .errors import ApplyError
from .items import Found
from .record import Laid
from .request import Claim
from .tree import Tree


class Marker(NamedTuple):
    """Who owns the host, and what was laid down there.

    Attributes:
        claim: the claim and its owner.
        paths: folders and files outside of our own folders; programs from before the record read these alone.
        needs_consent: whether a decommission has to name the claim as its consent.
        laid: what was laid down; None where a program from before the record wrote this.
    """

    claim: Claim
    paths: tuple[str, ...]
    needs_consent: bool = False
    laid: Laid | None = None

    def encode(self) -> bytes:
        """As the file holds it."""
        content: dict[str, object] = {
            "claim": self.claim.name,
            "owner": self.claim.owner,
            "paths": list(self.paths),
        }
        if self.claim.lineage:
            content["lineage"] = self.claim.lineage
        if self.needs_consent:
            content["needs_consent"] = True
        if self.laid is not None:
            content["laid"] = self.laid._asdict()
        return (json.dumps(content, indent=1) + "\n").encode()


def read_marker(tree: Tree) -> Marker | None:
    """The host's marker; None where it has none."""
    content = tree.read(places.MARKER)
    if content is None:
        return None
    try:
        raw = json.loads(content)
        claim = Claim(raw["claim"], raw["owner"], raw.get("lineage", ""))
        laid = raw.get("laid")
        return Marker(
            claim,
            tuple(raw["paths"]),
            needs_consent=raw.get("needs_consent") is True,
            laid=None if laid is None else Laid(**{name: tuple(paths) for name, paths in laid.items()}),
        )
    except (ValueError, KeyError, TypeError) as error:
        remedy = "find out whose host this is, then remove the file"
        raise ApplyError(places.MARKER, "does not say whose this host is", remedy) from error


def check_owner(marker: Marker | None, claim: Claim, *, takes_over: str = "") -> None:
    """Refuses a host of another owner, or of another state of that name; another claim of the owner is taken over.

    A claim without a lineage is told from others by its owner's name alone. With `takes_over`, the name or the
    lineage of an owner, that one's hosts are taken over.
    """
    if marker is None or (takes_over and takes_over in (marker.claim.owner, marker.claim.lineage)):
        return
    held = marker.claim
    if held.owner != claim.owner:
        raise ApplyError(
            places.MARKER,
            f"this host belongs to {held.owner} (claim {held.name}), not to {claim.owner}",
            f"decommission it there first, take it over (fleet:takeOver or ai_take_over: {held.owner}), "
            f"or set ai_claim_owner to {held.owner}",
        )
    if held.lineage and claim.lineage and held.lineage != claim.lineage:
        raise ApplyError(
            places.MARKER,
            f"this host belongs to another state of {held.owner} ({held.lineage}), not to this one ({claim.lineage})",
            f"use one state for both, or take it over (fleet:takeOver or ai_take_over: {held.lineage})",
        )


def check_consent(marker: Marker | None, consent: str) -> None:
    """Refuses to take down a host that may not go without a consent that names its claim."""
    if marker is not None and marker.needs_consent and consent != marker.claim.name:
        raise ApplyError(
            f"claim {marker.claim.name}",
            f"this host is in service, and its removal has {'the consent of another' if consent else 'no consent'}",
            "remove the host from the stack and run 'pulumi up', or by hand give ai_consent: "
            f"{marker.claim.name} (docs/how-to/day-two.md, 'Remove a host')",
        )


def other_holder(marker: Marker | None, claim: Claim) -> str:
    """The claim that holds the host by now, where that is another one: what is there is not this claim's to remove."""
    return marker.claim.name if marker is not None and marker.claim.name != claim.name else ""


def check_folders(found: dict[str, Found], marker: Marker | None) -> None:
    """Refuses a folder of another name than ours that holds what we did not put there: a decommission removes it."""
    known = marker.paths if marker else ()
    ours = tuple(f"{folder}/" for folder in (places.HOME, *known))
    for path, there in found.items():
        if (
            there.kind == "directory"
            and not there.is_empty
            and not places.is_ours(path)
            and path not in known
            and not path.startswith(ours)
        ):
            raise ApplyError(
                path,
                "exists already and contains files that are not this project's",
                "name a folder of its own",
            )
