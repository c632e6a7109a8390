"""What is told to systemd never holds the service up."""

from __future__ import annotations

import resource
import socket
import time
from contextlib import suppress
from pathlib import Path

from ai_client.platform.systemd import LONGEST_S, Notifier

# A busy machine's.
LATE_S = 5.0


def test_a_manager_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    """Its queue is full after some ten datagrams; the next send would wait for ever."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as filler,
            suppress(BlockingIOError),
        ):
            filler.connect(str(tmp_path / "notify"))
            while True:
                filler.send(b"x")
        began_s = time.monotonic()
        notifier.watchdog()
        assert time.monotonic() - began_s < LONGEST_S + LATE_S


def test_no_descriptor_left_is_no_fault_of_the_notifiers(tmp_path: Path) -> None:
    """It is called at every tick, which goes on."""
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        notifier.watchdog()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
