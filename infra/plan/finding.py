"""What is known of a host before a run: how it stands to its declared state, and what `up` would change on it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from infra.masking import mask
from infra.secret_texts import mask_values


class HostState(StrEnum):
    """How a host stands to its declared state."""

    SAME = "same"
    DIFFERS = "differs"
    ABSENT = "absent"
    BLOCKED = "blocked"
    UNSEEN = "unseen"
    AWAY = "away"
    CORDONED = "cordoned"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Difference:
    """One path, unit or input that `up` would change.

    Attributes:
        path: what differs.
        diff: a unified diff, secrets masked; its head says what stands on its two sides.
        is_drift: whether the host differs from what was last applied to it, not only from what is declared.
    """

    path: str
    diff: str
    is_drift: bool = False

    def as_output(self) -> dict[str, Any]:
        """The difference in a stack output."""
        return {"path": self.path, "diff": self.diff} | ({"drift": True} if self.is_drift else {})

    def as_text(self) -> str:
        """The difference as a preview shows it: its head says where it is drift."""
        head, *rest = self.diff.rstrip("\n").split("\n")
        return "\n".join([f"{head} (drift)" if self.is_drift else head, *rest])


def difference(path: str, before: str, after: str, *, side: str) -> Difference:
    """The difference of two texts, `side` being where the first one is from: `on the host`, `last applied`."""
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{path} {side}", f"{path} declared", lineterm=""
    )
    return Difference(path, mask("\n".join(lines)))


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one host.

    Attributes:
        state: how the host stands to its declared state.
        message: why it could not be looked at, where that is so, and what the plan is made from then.
        differences: what `up` would change.
        seen: what the host says of itself: digests, fingerprints, and the newest line of its journal.
        is_by_word: whether it was not contacted, and this is its word in the registry.
    """

    state: HostState
    message: str = ""
    differences: tuple[Difference, ...] = ()
    seen: Mapping[str, Any] = field(default_factory=dict, compare=False)
    is_by_word: bool = field(default=False, compare=False)

    @property
    def needs_run(self) -> bool:
        """Whether `up` has something to do although no input changed: to mend a host, or to fail where it fails."""
        return self.state in {HostState.DIFFERS, HostState.FAILED}

    def masked(self, secrets: Collection[str]) -> Finding:
        """The finding with these secret texts masked in what people read of it."""
        if not secrets:
            return self
        differences = tuple(replace(d, diff=mask_values(d.diff, secrets)) for d in self.differences)
        return replace(self, message=mask_values(self.message, secrets), differences=differences)

    def as_output(self) -> dict[str, Any]:
        """The finding as a stack output."""
        changes = [entry.as_output() for entry in self.differences]
        is_drift = any(entry.is_drift for entry in self.differences)
        return (
            {"state": self.state.value}
            | ({"drift": True} if is_drift else {})
            | ({"changes": changes} if changes else {})
            | ({"message": self.message} if self.message else {})
        )

    def headline(self, host: str) -> str:
        """Host and state, and why, in a line."""
        return f"{host}: {self.state.value}" + (f": {self.message}" if self.message else "")

    def bodies(self) -> tuple[str, ...]:
        """Each difference as a preview shows it."""
        return tuple(entry.as_text() for entry in self.differences)

    def as_text(self, host: str) -> str:
        """The finding as a preview shows it."""
        return "\n".join([self.headline(host), *self.bodies()])
