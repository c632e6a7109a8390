"""What can go wrong on the controller."""


class DeliveryError(Exception):
    """Names the culprit, the reason and the remedy; never holds a secret."""

    def __init__(self, culprit: str, reason: str, remedy: str) -> None:
        super().__init__(f"{culprit}: {reason}; {remedy}")
