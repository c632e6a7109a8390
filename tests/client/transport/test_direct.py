"""What the default transport does beside the rules that all of them keep (test_conformance)."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ai_client.errors import ConnectionLostError, MalformedResponseError
from ai_client.transport.base import TransportOptions, WireRequest
from ai_client.transport.decompression import unpacker_for
from ai_client.transport.direct import DirectTransport
from tests.client.service_rig import until


@asynccontextmanager
async def forgetful(keep_alive: str) -> AsyncIterator[tuple[str, list[int]]]:
    """A server that answers one request of each connection, and closes it, unread, as the second one comes."""
    connections: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{keep_alive}\r\nok".encode())
        await reader.read(1)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/models", connections


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_connection_that_is_closed_as_it_is_used_again_costs_nothing(is_stream: bool) -> None:
    """Its server had told how long it keeps it, and no byte of an answer came: the request goes again, by another."""
    sent = []
    request = {"method": "POST", "headers": {}, "body": b"{}", "on_sent": lambda: sent.append(1)}
    async with forgetful("keep-alive: timeout=5\r\n") as (url, connections):
        transport = DirectTransport(TransportOptions())
        await transport.fetch(WireRequest(url=url, **request))
        if is_stream:
            stream = await transport.open(WireRequest(url=url, **request))
            assert await stream.read() == b"ok"
            await stream.aclose()
        else:
            assert (await transport.fetch(WireRequest(url=url, **request))).body == b"ok"
        await transport.aclose()
    assert len(connections) == 2
    assert len(sent) == 2


async def test_nothing_is_sent_again_that_may_have_been_read() -> None:
    """A server that does not say how long it keeps connections may have lost this one at work."""
    async with forgetful("") as (url, connections):
        transport = DirectTransport(TransportOptions())
        request = WireRequest(method="POST", url=url, headers={}, body=b"{}")
        await transport.fetch(request)
        with pytest.raises(ConnectionLostError):
            await transport.fetch(request)
        await transport.aclose()
    assert len(connections) == 1


async def test_a_connection_is_let_go_before_its_server_does() -> None:
    """`Keep-Alive: timeout=1` is a second, less a quarter."""
    async with forgetful("keep-alive: timeout=1, max=100\r\n") as (url, _):
        transport = DirectTransport(TransportOptions())
        await transport.fetch(WireRequest(method="GET", url=url, headers={}))
        assert transport.idle_connections == 1
        await until(lambda: not transport.idle_connections, what="the connection to be let go")
        await transport.aclose()


def test_an_answer_of_several_gzip_members_is_whole() -> None:
    """RFC 1952: one file, however it was cut."""
    packed = gzip.compress(b"one ") + gzip.compress(b"two")
    for step in (1, 7, len(packed)):
        unpacker = unpacker_for("gzip", "h")
        assert unpacker is not None
        got = b"".join(unpacker.unpack(packed[at : at + step]) for at in range(0, len(packed), step))
        assert got == b"one two"
        assert unpacker.is_at_end


@pytest.mark.parametrize("encoding", ["", "identity", "UTF-8", "none", "identity, utf-8"])
def test_what_is_no_packing_is_none(encoding: str) -> None:
    """Some servers put the character set there."""
    assert unpacker_for(encoding, "h") is None


def test_deflate_without_its_header_is_read() -> None:
    """As some servers have always sent it."""
    raw = zlib.compress(b"hello", wbits=-zlib.MAX_WBITS)
    unpacker = unpacker_for("deflate", "h")
    assert unpacker is not None
    assert unpacker.unpack(raw) == b"hello"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br"])
def test_a_packing_that_nobody_asked_for_is_named(encoding: str) -> None:
    """The answer can't be read."""
    with pytest.raises(MalformedResponseError, match="not asked for"):
        unpacker_for(encoding, "h")
