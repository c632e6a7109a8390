"""Which proxy a URL is reached by, and that it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ai_client.errors import ConfigurationError
from ai_client.transport.base import TransportOptions, WireRequest
from ai_client.transport.direct import DirectTransport
from ai_client.transport.proxies import ProxyRules, default_transport

OTHER = "http://proxy.test:3128"


@pytest.mark.parametrize(
    ("chosen", "environment", "url", "expected"),
    [
        (None, {}, "https://api.test/v1", None),
        (OTHER, {}, "https://api.test/v1", OTHER),
        (None, {"HTTPS_PROXY": OTHER}, "https://api.test/v1", OTHER),
        (None, {"https_proxy": OTHER, "HTTPS_PROXY": "http://no.test"}, "https://api.test/v1", OTHER),
        (None, {"HTTPS_PROXY": OTHER}, "http://api.test/v1", None),
        (None, {"http_proxy": "proxy.test:3128"}, "http://api.test/v1", OTHER),
        (None, {"ALL_PROXY": "socks5://proxy.test:1080"}, "https://api.test/v1", "socks5://proxy.test:1080"),
        (None, {"HTTP_PROXY": OTHER, "REQUEST_METHOD": "GET"}, "http://api.test/v1", None),
        (OTHER, {"NO_PROXY": "api.test"}, "https://api.test/v1", None),
        (OTHER, {"no_proxy": ".test"}, "https://api.test/v1", None),
        (OTHER, {"NO_PROXY": "other.org, test"}, "https://api.test/v1", None),
        (OTHER, {"NO_PROXY": "pi.test"}, "https://api.test/v1", OTHER),
        (OTHER, {"NO_PROXY": "*"}, "https://api.test/v1", None),
        (OTHER, {"NO_PROXY": "api.test:8443"}, "https://api.test:8443/v1", None),
        (OTHER, {"NO_PROXY": "api.test:8443"}, "https://api.test:9000/v1", OTHER),
        (OTHER, {"NO_PROXY": "10.0.0.0/8"}, "http://10.1.2.3:8000/v1", None),
        (OTHER, {"NO_PROXY": "127.0.0.1,::1"}, "http://[::1]:8000/v1", None),
    ],
)
def test_the_proxy_of_a_url(
    chosen: str | None, environment: dict[str, str], url: str, expected: str | None
) -> None:
    """As curl and Python read these variables; the settings win, and `NO_PROXY` holds for them, too."""
    assert ProxyRules(chosen, environment).of(url) == expected


def test_a_proxy_of_another_kind_is_named() -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigurationError, match="ftp"):
        ProxyRules("ftp://proxy.test", {}).of("https://api.test/v1")


def test_without_a_proxy_there_is_nothing_in_between() -> None:
    """The fast transport is used as it is."""
    assert isinstance(default_transport(TransportOptions(), environment={}), DirectTransport)


@asynccontextmanager
async def speaking(answer: bytes, *, socks: bool = False) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers each request with `answer`, as a SOCKS5 proxy before it where asked for."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if socks:
            methods = (await reader.readexactly(2))[1]
            await reader.readexactly(methods)
            writer.write(b"\5\0")
            head = await reader.readexactly(4)
            seen.append(
                b"socks to "
                + (await reader.readexactly(4 if head[3] == 1 else (await reader.readexactly(1))[0]))
            )
            await reader.readexactly(2)
            writer.write(b"\5\0\0\1\0\0\0\0\0\0")
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


def _answer(text: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(text), text)


async def _fetch(url: str, environment: dict[str, str], proxy_url: str | None = None) -> bytes:
    transport = default_transport(TransportOptions(proxy_url=proxy_url), environment=environment)
    try:
        return (await transport.fetch(WireRequest(method="GET", url=url, headers={}))).body
    finally:
        await transport.aclose()


async def test_the_environments_proxy_is_used_and_no_proxy_goes_past_it() -> None:
    """By the real ways."""
    async with speaking(_answer(b"direct")) as (port, _), speaking(_answer(b"proxied")) as (proxy, seen):
        environment = {"http_proxy": f"http://127.0.0.1:{proxy}"}
        url = f"http://127.0.0.1:{port}/v1/models"
        assert await _fetch(url, environment) == b"proxied"
        assert seen[0].startswith(b"GET http://127.0.0.1")
        assert await _fetch(url, environment | {"no_proxy": "127.0.0.1"}) == b"direct"


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_a_socks_proxy_is_spoken_to_as_one(scheme: str) -> None:
    """The configuration takes such a URL, so it has to work."""
    async with speaking(_answer(b"by socks"), socks=True) as (proxy, seen):
        body = await _fetch("http://127.0.0.1:9/v1/models", {}, f"{scheme}://127.0.0.1:{proxy}")
    assert body == b"by socks"
    assert seen[0].startswith(b"socks to ")
