"""From a URL to a connection: names, addresses, sockets, TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from aiohappyeyeballs import start_connection
from aiohappyeyeballs.types import AddrInfoType
from yarl import URL

from ai_client.errors import AIClientError, ConfigurationError, ConnectError, TransportTimeoutError
from ai_client.transport.base import host_trouble
from ai_client.transport.connection import HttpConnection
from ai_client.transport.tls import verification_error

_ADDRESSES_KEPT_S: Final = 30.0
# RFC 8305: how long the first family may take before the other one is tried beside it.
_HEAD_START_S: Final = 0.25


class Origin(NamedTuple):
    """What connections are made to and shared by. `host` as in a certificate."""

    host: str
    port: int
    is_tls: bool


@dataclass(frozen=True, slots=True)
class Route:
    """What all requests to one URL have in common: `head` is the request line and the Host header."""

    origin: Origin
    head: str


def route_of(method: str, url: str) -> Route:
    """Raises ConfigurationError where that is no http(s) URL."""
    try:
        parsed = URL(url, encoded=True)
        host, port, path = parsed.raw_host, parsed.port, parsed.raw_path_qs
    except ValueError:
        raise _no_url(url) from None
    if parsed.scheme not in {"http", "https"} or not host or port is None:
        raise _no_url(url)
    if not path.isascii() or not path.isprintable() or " " in path:
        raise _no_url(url)
    origin = Origin(host.rstrip("."), port, parsed.scheme == "https")
    return Route(origin, f"{method} {path} HTTP/1.1\r\nHost: {parsed.host_port_subcomponent}\r\n")


def _no_url(url: str) -> ConfigurationError:
    return ConfigurationError("base_url", f"{url!r} is not an http(s) URL", key="base_url")


class Dialer:
    """Makes connections for one event loop. Addresses are kept for a while, and looked up once for all who ask."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tls: Callable[[], ssl.SSLContext]) -> None:
        self._loop = loop
        self._tls = tls
        self._addresses: dict[Origin, tuple[float, asyncio.Task[list[AddrInfoType]]]] = {}

    async def connect(
        self, origin: Origin, make: Callable[[], HttpConnection], *, timeout_s: float
    ) -> HttpConnection:
        """An open connection. Raises ConnectError, TLSVerificationError, TransportTimeoutError."""
        try:
            async with asyncio.timeout(timeout_s):
                addresses = await self._look_up(origin)
                sock = await start_connection(
                    addresses, happy_eyeballs_delay=_HEAD_START_S, interleave=1, socket_factory=_make_socket
                )
                return await self._open(sock, origin, make)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            if not isinstance(error, ssl.SSLError):
                self._addresses.pop(origin, None)  # the name may have moved
            raise _translated(error, origin, timeout_s) from error

    async def _open(
        self, sock: socket.socket, origin: Origin, make: Callable[[], HttpConnection]
    ) -> HttpConnection:
        _, connection = await self._loop.create_connection(
            make,
            sock=sock,
            ssl=self._tls() if origin.is_tls else None,
            server_hostname=origin.host if origin.is_tls else None,
        )
        return connection

    async def _look_up(self, origin: Origin) -> list[AddrInfoType]:
        known = self._addresses.get(origin)
        now_s = self._loop.time()
        if known is None or known[0] <= now_s:
            known = self._addresses[origin] = (
                now_s + _ADDRESSES_KEPT_S,
                asyncio.ensure_future(self._resolve(origin)),
            )
            known[1].add_done_callback(_retrieve)
        # Shielded: one who gives up must not take the answer from the others.
        return await asyncio.shield(known[1])

    async def _resolve(self, origin: Origin) -> list[AddrInfoType]:
        return list(await self._loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM))


def _retrieve(task: asyncio.Task[list[AddrInfoType]]) -> None:
    """Nobody may be left to hear of a failure; asyncio would complain of it in the log."""
    if not task.cancelled():
        task.exception()


def _make_socket(info: AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = info
    connection = socket.socket(family=family, type=kind, proto=protocol)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


def _translated(error: Exception, origin: Origin, timeout_s: float) -> AIClientError:
    if isinstance(error, TimeoutError):
        return TransportTimeoutError(origin.host, phase="connect", timeout_s=timeout_s, sent=False)
    if (own := host_trouble(error, origin.host)) is not None:
        return own
    if isinstance(error, ssl.SSLError):
        return verification_error(origin.host, error)
    return ConnectError(
        origin.host, f"no connection to port {origin.port}: {str(error) or type(error).__name__}"
    )
