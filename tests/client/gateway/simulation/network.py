"""A network in memory: listening sockets, connections with delays, windows and resets."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.client.gateway.simulation.loop import SimLoop

#: What the two kernels hold of a direction before its sender feels that nobody reads.
KERNEL_BYTES = 32 * 1024
HIGH_BYTES = 64 * 1024
LOW_BYTES = 16 * 1024
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
        network.sockets.setdefault(address, self._copies)

    def dup(self) -> FakeSocket:
        return FakeSocket(self.address, self._network, family=self.family, copies=self._copies)

    def getsockname(self) -> Any:
        return self.address

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
        self._network = network
        self._sock = sock
        network.accept(sock.address, self)

    def close(self) -> None:
        self._network.servers.get(self._sock.address, []).remove(self)
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
        near.begin(factory())
        self.backlog.setdefault(address, deque()).append(far)
        self.loop.call_later(self.delay_s(), self._serve, address)
        return near

    def accept(self, address: Any, server: SimServer) -> None:
        self.servers.setdefault(address, []).append(server)
        self.loop.call_soon(self._serve, address)

    def _serve(self, address: Any) -> None:
        servers, waiting = self.servers.get(address), self.backlog.get(address)
        while servers and waiting:
            transport = waiting.popleft()
            transport.begin(self._random.choice(servers).factory())

    def nobody_listens(self, address: Any) -> None:
        """The kernel resets who waits in the queue."""
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
        network.open[self] = name

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        if self._is_lost:
            return
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
        self._loop.call_at(self._last_s, self.peer._arrive, data)

    def _arrive(self, data: bytes | None) -> None:
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
            self.peer._was_read(len(data))
            if not self._is_closing:
                self._protocol.data_received(data)

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
        self._network.open.pop(self, None)
        if self._sock is not None:
            self._sock.close()
        if self._protocol is not None:
            self._protocol.connection_lost(error)
