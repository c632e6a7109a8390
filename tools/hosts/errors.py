"""The one error of this package: who is at fault, why, and what helps."""


class HostsError(Exception):
    """A failure that the user can act on; printed as one line `hosts: culprit: reason; remedy`."""

    def __init__(self, culprit: str, reason: str, remedy: str) -> None:
        super().__init__(f"{culprit}: {reason}; {remedy}")
        self.culprit = culprit
        self.reason = reason
        self.remedy = remedy
