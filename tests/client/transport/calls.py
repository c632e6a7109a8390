"""Transports of every kind, and requests for them."""

from collections.abc import Callable

from ai_client.transport.aiohttp import AiohttpTransport
from ai_client.transport.base import Transport, TransportOptions, WireRequest
from ai_client.transport.httpx import HttpxTransport
from ai_client.transport.proxies import default_transport

Make = Callable[..., Transport]
KINDS: dict[str, Callable[[TransportOptions], Transport]] = {
    "direct": lambda options: default_transport(options, environment={}),
    "aiohttp": AiohttpTransport,
    "httpx": lambda options: HttpxTransport(options=options),
}


def post(url: str, *, body: bytes = b"{}", **more: object) -> WireRequest:
    """A request with a key."""
    headers = {"Content-Type": "application/json", "Authorization": "Bearer hs_test_abcdefgh"}
    return WireRequest(method="POST", url=url, headers=headers, body=body, **more)  # type: ignore[arg-type]
