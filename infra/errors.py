"""Errors of the program.

FleetError
├── SettingsError      a configuration key is wrong, missing or contradicts another
│   └── ManySettingsError  several of them
├── NodeSourceError    a source of hosts could not answer
├── KeySourceError     the upstream key could not be read from where it is kept
├── RemovalError       more hosts would be removed at once than the stack allows
├── PreviewError       a preview that a report is to be made of cannot be read (infra.report)
├── MachineError       the machine that runs Pulumi can't do what a run needs
├── ContentError       a file of this project that a host needs is missing or damaged
└── PlaybookError      a playbook run could not be started or its result not be read
"""

from __future__ import annotations

from collections.abc import Iterable

from infra.secret_texts import mask_values


class FleetError(Exception):
    """What went wrong, why, and what to do about it; never holds a secret.

    Attributes:
        culprit: the configuration key, host or file that is at fault.
        reason: what is wrong with it.
        remedy: what the user can do.
    """

    def __init__(self, culprit: str, reason: str, remedy: str) -> None:
        super().__init__(f"{culprit}: {reason}; {remedy}")
        self.culprit = culprit
        self.reason = reason
        self.remedy = remedy


class SettingsError(FleetError):
    """A configuration key is wrong, missing or contradicts another."""


class ManySettingsError(SettingsError):
    """Everything that is wrong with a configuration; culprit, reason and remedy are those of the first one.

    Attributes:
        errors: each of them.
    """

    def __init__(self, errors: tuple[SettingsError, ...]) -> None:
        first = errors[0]
        super().__init__(first.culprit, first.reason, first.remedy)
        self.errors = errors

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


def raise_all(errors: Iterable[SettingsError], *, hidden: Iterable[str] = ()) -> None:
    """Raises what is wrong, in one error; nothing where nothing is.

    Args:
        errors: what is wrong.
        hidden: secret texts, masked in every error: one says what it found, wherever that came from.

    Raises:
        SettingsError: the one that there is, or a ManySettingsError of all, each once.
    """
    texts = tuple(hidden)
    masked = [_masked(error, texts) for error in errors] if texts else errors
    found = tuple({str(error): error for error in masked}.values())
    if len(found) == 1:
        raise found[0]
    if found:
        raise ManySettingsError(found)


def _masked(error: SettingsError, texts: Iterable[str]) -> SettingsError:
    return SettingsError(*(mask_values(part, texts) for part in (error.culprit, error.reason, error.remedy)))


class NodeSourceError(FleetError):
    """A source of hosts could not answer; its hosts are unknown, which never means that there are none."""


class KeySourceError(FleetError):
    """The upstream key could not be read from where it is kept, or is not a key."""


class RemovalError(FleetError):
    """More hosts would be removed at once than the stack allows."""


class MachineError(FleetError):
    """The machine that runs Pulumi can't do what a run needs."""


class ContentError(FleetError):
    """A file of this project that a host needs is missing or damaged."""


class PlaybookError(FleetError):
    """A playbook run could not be started, or its result not be read."""
