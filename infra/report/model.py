"""A plan as it is shown: what `up` would do to each host and resource. Every text in it is masked already."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Why `up` would change a host."""

    DRIFT = "drift"
    DECLARED = "declared"
    FIRST = "first deploy"
    NONE = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One file, folder or unit that differs: its path, and a unified diff to what is declared.

    `is_drift` says that the host differs from what was last applied to it, not only from what is declared.
    """

    path: str
    diff: str
    is_drift: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """What `up` would do to one host.

    Attributes:
        name: the host.
        state: how it stands to its declared state, in the program's words (`same`, `differs`, `unreachable`, …), or
            `removed` where the host is decommissioned.
        message: why it could not be looked at.
        changes: what differs.
        cause: why.
        visible_inputs: which inputs of its run changed, such as `variables`; empty where nothing was declared anew.
    """

    name: str
    state: str
    message: str = ""
    changes: tuple[Change, ...] = ()
    cause: Cause = Cause.NONE
    visible_inputs: tuple[str, ...] = ()

    @property
    def is_partly_drift(self) -> bool:
        """Whether some of its changes are drift, and others are not or it is not known of them."""
        return self.cause is not Cause.DRIFT and any(change.is_drift for change in self.changes)


@dataclass(frozen=True, slots=True, order=True)
class ResourceChange:
    """One resource that `up` creates, updates, replaces or deletes, and the inputs that change."""

    operation: str
    name: str
    kind: str
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a preview says.

    Attributes:
        stack: the stack's name.
        hosts: every host, by name.
        resources: every resource that changes, by operation and name.
        blockers: what `up` still needs.
        errors: why the preview failed; empty where it succeeded.
        warnings: what else was said.
        digest: names this plan, for `fleet:requirePlan`; empty where the program gives none.
        lists_hosts: whether the preview says for every host how it stands.
        is_finished: whether the preview ran to its end and succeeded.
    """

    stack: str
    hosts: tuple[HostPlan, ...] = ()
    resources: tuple[ResourceChange, ...] = ()
    blockers: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    digest: str = ""
    lists_hosts: bool = True
    is_finished: bool = True

    @property
    def changes_something(self) -> bool:
        """Whether `up` would do anything, or it is not known what."""
        return not self.is_finished or bool(self.resources) or any(h.state != "same" for h in self.hosts)
