"""Waiting for something to become true."""

import time
from collections.abc import Callable


def wait_until(met: Callable[[], bool], *, within_s: float = 30) -> None:
    """Asks again until the answer is yes; fails where it never is."""
    deadline = time.monotonic() + within_s
    while not met():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.05)
