"""What can go wrong on a host."""


class ApplyError(Exception):
    """Names the culprit, the reason and the remedy; never holds a secret."""

    def __init__(self, culprit: str, reason: str, remedy: str) -> None:
        super().__init__(f"{culprit}: {reason}; {remedy}")
        self.culprit = culprit
