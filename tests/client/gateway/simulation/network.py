"""A network in memory: listening sockets, connections with delays, windows and resets."""

from __future__ import annotations

import asyncio
import errno
import itertools
import math
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from tests.client.gateway.simulation.process import PROCESS, Process

if TYPE_CHECKING:
    from tests.client.gateway.simulation.loop import SimLoop

#: What the two kernels hold of a direction before its sender feels that nobody reads.
KERNEL_BYTES = 32 * 1024
HIGH_BYTES = 64 * 1024
LOW_BYTES = 16 * 1024
# Of a reset that no world's dice are rolled for.
RESET_S = 0.001
_RESET = None


class FakeSocket:
    """A listening socket: open until its last copy is closed."""

    def __init__(
        self, address: Any, network: Network, *, family: int, copies: list[int] | None = None
    ) -> None:
        self.address = address
        self.family = family
        self._network = network
        self._copies = [0] if copies is None else copies
        self._copies[0] += 1
        self._is_open = True
        self._number = network.number(self)
        network.sockets.setdefault(address, self._copies)
        process = PROCESS.get()
        if process is not None:
            process.hold(self, self.close)

    def dup(self) -> FakeSocket:
        return FakeSocket(self.address, self._network, family=self.family, copies=self._copies)

    def getsockname(self) -> Any:
        return self.address

    def fileno(self) -> int:
        return self._number

    def setblocking(self, _: bool) -> None:
        """It never does."""

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._copies[0] -= 1
            if self._copies[0] == 0:
                self._network.nobody_listens(self.address)


class _Peer:
    """What a Unix socket tells of the one at its other end."""

    family = socket.AF_UNIX

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def getsockopt(self, *_: int) -> bytes:
        return struct.pack("3i", 1, self._uid, self._uid)

    def setsockopt(self, *_: int) -> None:
        """Nothing to be set."""


class SimServer:
    """What `loop.create_server` gives."""

    def __init__(
        self, network: Network, factory: Callable[[], asyncio.BaseProtocol], sock: FakeSocket
    ) -> None:
        self.factory = factory
        self.process = PROCESS.get()
        self._network = network
        self._sock = sock
        self._is_open = True
        if self.process is not None:
            self.process.hold(self, self.close)
        network.accept(sock.address, self)

    @property
    def is_frozen(self) -> bool:
        return self.process is not None and self.process.is_frozen

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._network.stop_accepting(self._sock.address, self)
            self._sock.close()


class Network:
    """Who listens where, who is connected, and what is wrong with the way."""

    loop: SimLoop

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self.servers: dict[Any, list[SimServer]] = {}
        self.sockets: dict[Any, list[int]] = {}
        self.backlog: dict[Any, deque[SimTransport]] = {}
        self.open: dict[SimTransport, str] = {}
        #: What befalls new connections to upstreams: an error number, "hang", or "" for nothing.
        self.trouble: int | str = ""
        self.latency_s = 0.0
        #: Where nobody's process is.
        self.context = Context()
        self.numbered: dict[int, Any] = {}
        self._numbers = itertools.count(1000)
        #: From when to when nobody accepted on an address; None: still.
        self.gaps: dict[Any, list[tuple[float, float | None]]] = {}

    def number(self, thing: Any) -> int:
        """A descriptor of its own."""
        number = next(self._numbers)
        self.numbered[number] = thing
        return number

    def check_names(self, host: str) -> None:
        if self.trouble == "names":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def reach(self, address: Any) -> None:
        """Returns when the other side's kernel has the connection."""
        trouble = self.trouble if isinstance(address, tuple) else ""
        await asyncio.sleep(self.delay_s())
        if trouble == "hang":
            await self.loop.create_future()
        if isinstance(trouble, int) and trouble:
            raise OSError(trouble, errno.errorcode[trouble])
        if not self._is_listened_to(address):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")

    def _is_listened_to(self, address: Any) -> bool:
        return bool(self.servers.get(address)) or self.sockets.get(address, [0])[0] > 0

    def delay_s(self) -> float:
        """Of one packet."""
        return self._random.uniform(0.0, 0.002) + self.latency_s * self._random.random()

    def connect(
        self,
        address: Any,
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        uid: int,
        sock: socket.socket | None = None,
    ) -> SimTransport:
        """A connection. Raises ConnectionRefusedError."""
        if not self._is_listened_to(address):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")
        near = SimTransport(self, {"socket": None, "peername": address}, sock=sock, name=f"to {address}")
        is_unix = isinstance(address, str)
        far = SimTransport(
            self,
            {"socket": _Peer(uid)} if is_unix else {"peername": ("127.0.0.1", 40_000)},
            name=f"at {address}",
        )
        near.peer, far.peer = far, near
        near.begin(factory)
        self.backlog.setdefault(address, deque()).append(far)
        self.loop.call_at(self.loop.time() + self.delay_s(), self._serve, address, context=self.context)
        return near

    def accept(self, address: Any, server: SimServer) -> None:
        gaps = self.gaps.setdefault(address, [])
        if gaps and gaps[-1][1] is None:
            gaps[-1] = (gaps[-1][0], self.loop.time())
        self.servers.setdefault(address, []).append(server)
        self.loop.call_soon(self._serve, address, context=self.context)

    def stop_accepting(self, address: Any, server: SimServer) -> None:
        self.servers[address].remove(server)
        if not self.servers[address]:
            self.gaps[address].append((self.loop.time(), None))

    def _serve(self, address: Any) -> None:
        waiting = self.backlog.get(address)
        while waiting:
            servers = [each for each in self.servers.get(address, []) if not each.is_frozen]
            if not servers:
                return
            server, transport = self._random.choice(servers), waiting.popleft()
            if server.process is None:
                transport.begin(server.factory)
            else:
                server.process.enter(transport.begin, server.factory)
                if transport.process is None and not transport.is_lost:
                    waiting.appendleft(transport)  # it died before it took it

    def nobody_listens(self, address: Any) -> None:
        """The kernel resets who waits in the queue."""
        self.sockets.pop(address, None)
        waiting = self.backlog.pop(address, deque())
        for transport in waiting:
            transport.abort()


class SimTransport(asyncio.Transport):
    """One end. What it writes arrives in order, after a delay, when the other end reads."""

    peer: SimTransport

    def __init__(
        self, network: Network, extra: dict[str, Any], *, sock: socket.socket | None = None, name: str = ""
    ) -> None:
        super().__init__(extra)
        self._network = network
        self._loop = network.loop
        self._sock = sock
        self._protocol: Any = None
        self._inbox: deque[bytes | None] = deque()
        self._unread_bytes = 0
        self._last_s = 0.0
        self._is_closing = self._is_lost = self._is_paused = self._has_paused_protocol = False
        self.process: Process | None = None
        network.open[self] = name

    def begin(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """It is the current process's from now on."""
        if self._is_lost:
            return
        self.process = PROCESS.get()
        if self.process is not None:
            self.process.hold(self, self.vanish)
        self._protocol = protocol = factory()
        protocol.connection_made(self)
        self._loop.call_soon(self._take)

    # What protocols call.

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def is_reading(self) -> bool:
        return not self._is_paused

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        self._loop.call_soon(self._take)

    def get_write_buffer_size(self) -> int:
        return max(0, self._unread_bytes - KERNEL_BYTES)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As they are."""

    def write(self, data: Any) -> None:
        if self._is_closing or self._is_lost or not data:
            return
        self._send(bytes(data))
        self._unread_bytes += len(data)
        if self.get_write_buffer_size() > HIGH_BYTES and not self._has_paused_protocol:
            self._has_paused_protocol = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._inbox.clear()
            self._send(b"")
            if self.get_write_buffer_size() == 0:
                self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        if not self._is_lost:
            was_closing, self._is_closing = self._is_closing, True
            self._inbox.clear()
            if not was_closing or self.get_write_buffer_size():
                self._send(_RESET)
            self._loop.call_soon(self._lose, None)

    # What happens.

    def _send(self, data: bytes | None) -> None:
        # Timers of one moment have no order.
        self._last_s = max(self._last_s + 1e-6, self._loop.time() + self._network.delay_s())
        self._loop.call_at(self._last_s, self.peer._arrive, data, context=self._network.context)

    def _arrive(self, data: bytes | None) -> None:
        if self.was_killed:
            if data:
                self._send(_RESET)
        elif self._is_lost and data:
            # Its kernel has closed it, and says so to whoever still writes.
            self._loop.call_at(
                self._loop.time() + RESET_S, self.peer._arrive, _RESET, context=self._network.context
            )
        elif self.process is None:
            self._arrived(data)
        else:
            self.process.enter(self._arrived, data)

    @property
    def is_lost(self) -> bool:
        return self._is_lost

    @property
    def was_killed(self) -> bool:
        """With its process."""
        return self.process is not None and self.process.was_killed

    @property
    def stands(self) -> bool:
        """Nobody will answer on it."""
        return self.process is not None and (self.process.was_killed or self.process.is_frozen)

    def ended_after(self, at_s: float) -> bool:
        """Whether its process ended by itself, and not before that."""
        return self.process is not None and at_s <= self.process.ended_at_s < math.inf

    def vanish(self) -> None:
        """Its process is gone: the kernel ends it, and nobody is told on this side."""
        if self._is_lost:
            return
        self._is_lost = True
        self._network.open.pop(self, None)
        if self._sock is not None:
            self._sock.close()
        self._send(_RESET if self._inbox else b"")
        self._inbox.clear()

    def _arrived(self, data: bytes | None) -> None:
        if data is _RESET:
            self._inbox.clear()
            self._is_closing = True
            self._lose(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
            return
        self._inbox.append(data)
        self._take()

    def _take(self) -> None:
        while self._inbox and self._protocol is not None and not self._is_paused and not self._is_lost:
            data = self._inbox.popleft()
            if not data:
                if not self._is_closing and not self._protocol.eof_received():
                    self.close()
                return
            self.peer._hear_of_reading(len(data))
            if not self._is_closing:
                self._protocol.data_received(data)

    def _hear_of_reading(self, count: int) -> None:
        if self.process is None:
            self._was_read(count)
        else:
            self.process.enter(self._was_read, count)

    def _was_read(self, count: int) -> None:
        self._unread_bytes -= count
        if self._is_lost:
            return
        if self._has_paused_protocol and self.get_write_buffer_size() <= LOW_BYTES:
            self._has_paused_protocol = False
            self._protocol.resume_writing()
        if self._is_closing and self.get_write_buffer_size() == 0:
            self._loop.call_soon(self._lose, None)

    def _lose(self, error: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        if self.process is not None:
            self.process.let_go(self)
        self._network.open.pop(self, None)
        if self._sock is not None:
            self._sock.close()
        if self._protocol is not None:
            self._protocol.connection_lost(error)
