"""Tells systemd about the service's state (sd_notify(3)); does nothing where systemd did not ask."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

# A manager that is behind with reading is waited for, and not for long: nobody is served meanwhile.
LONGEST_S = 0.5


class Notifier:
    """Sends datagrams to `NOTIFY_SOCKET` of the given environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self.watchdog_s = _watchdog_s(environment)

    def ready(self, status: str) -> None:
        """The service serves."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; READY=1 ends it. The time is what `Type=notify-reload` wants to see."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    @property
    def is_active(self) -> bool:
        """Whether systemd listens."""
        return bool(self._address)

    def main_process(self, pid: int) -> None:
        """Another process of this service is its main one from now on."""
        self._send(f"MAINPID={pid}")

    def stopping(self, status: str) -> None:
        """The service drains."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def extend(self, seconds: float) -> None:
        """The stop takes longer: asks systemd for as many seconds from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def watchdog(self) -> None:
        """The event loop turns."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # The service must neither die nor stand because its manager does not listen, or no descriptor is left: the
        # watchdog will tell.
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.settimeout(LONGEST_S)
            sock.connect(address)
            sock.sendall(text.encode())


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """How often to send WATCHDOG=1: half of what systemd allows; None where it has no watchdog for this process."""
    usec = environment.get("WATCHDOG_USEC", "")
    if not usec.isdigit() or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / 2e6
