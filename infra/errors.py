"""Errors of the program.

FleetError
├── SettingsError      a configuration key is wrong, missing or contradicts another
├── NodeSourceError    a source of hosts could not answer
├── KeySourceError     the upstream key could not be read from where it is kept
├── RemovalError       more hosts would be removed at once than the stack allows
├── PreviewError       a preview that a report is to be made of cannot be read (infra.report)
├── ContentError       a file of this project that a host needs is missing or damaged
└── PlaybookError      a playbook run could not be started or its result not be read
"""


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


class NodeSourceError(FleetError):
    """A source of hosts could not answer; its hosts are unknown, which never means that there are none."""


class KeySourceError(FleetError):
    """The upstream key could not be read from where it is kept, or is not a key."""


class RemovalError(FleetError):
    """More hosts would be removed at once than the stack allows."""


class ContentError(FleetError):
    """A file of this project that a host needs is missing or damaged."""


class PlaybookError(FleetError):
    """A playbook run could not be started, or its result not be read."""
