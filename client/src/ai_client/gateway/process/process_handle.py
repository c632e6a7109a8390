"""Another process, held by a descriptor: its number may be another's by the time that it is to be ended."""

from __future__ import annotations

import os
import signal
import socket
import struct
from contextlib import suppress

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class ProcessHandle:
    """The process that made a socket pair. `why_not` says why it can't be ended from here; "" where it can."""

    def __init__(self, sock: socket.socket) -> None:
        """To be made while that process lives, which its next word on the socket proves."""
        self.pid, *_ = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        self.why_not = ""
        self._descriptor: int | None = None
        if self.pid <= 0:
            self.why_not = "it is of another pid namespace"
            return
        try:
            self._descriptor = os.pidfd_open(self.pid)
        except OSError as exc:  # of a kernel before 5.3, or of a container's filter of system calls
            self.why_not = f"this system gives no handle of a process ({exc.strerror})"

    def kill(self) -> None:
        """End it, also where it is stopped. Idempotent; `why_not` says afterwards whether that was allowed."""
        if self._descriptor is None:
            return
        try:
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended by itself
        except OSError as exc:
            self.why_not = f"this system does not let it be ended ({exc.strerror})"

    def close(self) -> None:
        """Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)
