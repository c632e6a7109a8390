"""What can go wrong on the controller."""


class DeliveryError(Exception):
    """Names the culprit, the reason and the remedy; never holds a secret."""

    def __init__(self, culprit: str, reason: str, remedy: str) -> None:
        super().__init__(f"{culprit}: {reason}; {remedy}")


class WithoutPythonError(Exception):
    """The host has no interpreter that could run the program. `machine` is its processor, as `uname -m` says it."""

    def __init__(self, machine: str) -> None:
        super().__init__(machine)
        self.machine = machine
