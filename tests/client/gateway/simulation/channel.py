"""What a hand-over needs of the system: a socket pair, numbers of descriptors, and a process that inherits them."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import struct
from collections.abc import Iterable
from typing import Any

from tests.client.gateway.simulation.manager import Manager
from tests.client.gateway.simulation.network import Network, SimTransport
from tests.client.gateway.simulation.process import PROCESS, Process


class PairEnd:
    """One end of a socket pair, until its last copy is closed."""

    def __init__(self, network: Network, transport: SimTransport, copies: list[int], *, made_by: int) -> None:
        self._network = network
        self._made_by = made_by
        self.transport = transport
        self._copies = copies
        self._copies[0] += 1
        self._is_open = True
        self._number = network.number(self)
        process = PROCESS.get()
        if process is not None:
            process.hold(self, self.close)

    def __enter__(self) -> PairEnd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._number

    def setblocking(self, _: bool) -> None:
        """It never does."""

    def dup(self) -> PairEnd:
        return PairEnd(self._network, self.transport, self._copies, made_by=self._made_by)

    def getsockopt(self, *_: int) -> bytes:
        """Who made the pair."""
        return struct.pack("3i", self._made_by, 0, 0)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._copies[0] -= 1
            if self._copies[0] == 0 and self.transport.get_protocol() is None:
                self.transport.vanish()


class PlayedSocket:
    """`socket` for the hand-over."""

    AF_UNIX = socket.AF_UNIX

    def __init__(self, network: Network) -> None:
        self._network = network

    def socketpair(self) -> tuple[PairEnd, PairEnd]:
        ends = [SimTransport(self._network, {"socket": None}, name="hand-over") for _ in range(2)]
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        process = PROCESS.get()
        assert process is not None
        ours, theirs = (PairEnd(self._network, end, [0], made_by=process.pid) for end in ends)
        return ours, theirs

    def socket(self, *, fileno: int) -> Any:
        process = PROCESS.get()
        assert process is not None
        return process.inherited[fileno]


class PlayedOs:
    """`os` for the hand-over."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def getpid(self) -> int:
        process = PROCESS.get()
        assert process is not None
        return process.pid

    def set_inheritable(self, number: int, _: bool) -> None:
        """Numbers are the simulation's."""

    def killpg(self, pid: int, number: int) -> None:
        assert Manager.current is not None
        Manager.current.kill_group(pid, number)

    def pidfd_open(self, pid: int) -> int:
        assert Manager.current is not None
        return self._network.number(Manager.current.named(pid))

    def close(self, _: int) -> None:
        """The kernel's numbers are not used."""


class PlayedSignal:
    """`signal` for the hand-over."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def __getattr__(self, name: str) -> Any:
        return getattr(signal, name)

    def pidfd_send_signal(self, handle: int, number: int) -> None:
        process: Process = self._network.numbered[handle]
        process.say(f"process {process.pid} stands, the next one sees")
        process.signal(number)


class _Child:
    """As `subprocess.Popen`."""

    def __init__(self, process: Process) -> None:
        self.pid = process.pid

    def wait(self) -> int:
        return 0


class PlayedSubprocess:
    """`subprocess` for the hand-over: `befall` says what becomes of the next process."""

    Popen = object

    def __init__(self, network: Network, source: random.Random) -> None:
        self._network = network
        self._random = source
        self.Popen = self._start

    def _start(
        self, arguments: object, *, env: dict[str, str], pass_fds: Iterable[int], start_new_session: bool
    ) -> _Child:
        del arguments, start_new_session
        assert Manager.current is not None
        if self._random.random() < 0.05:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        things = {number: self._network.numbered[number] for number in pass_fds}
        process = Manager.current.spawn(env)
        process.before = PROCESS.get()
        for number, thing in things.items():
            process.inherited[number] = process.context.copy().run(thing.dup)
        process.fate = fate_of(self._random)
        process.say(f"process {process.pid} comes next: {process.fate}")
        return _Child(process)


def fate_of(source: random.Random) -> tuple[int, str] | None:
    """None for most; else any step of a hand-over, the early ones as likely as the many late ones."""
    if source.random() < 0.5:
        return None
    return round(10 ** source.uniform(0, 3.3)), source.choice(["dies", "dies", "dies", "freezes"])
