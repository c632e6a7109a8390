"""What the default transport makes of upstreams that are broken, or mean harm."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from ai_client.errors import AIClientError, ConnectionLostError, MalformedResponseError
from ai_client.transport.base import Timeouts, TransportOptions, WireRequest
from ai_client.transport.direct import DirectTransport
from tests.client.admission.scheduling import until
from tests.client.transport.upstreams import OK, Connection, Handler, answer_all, serving

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
FILLER = b"x-filler: " + b"f" * 1000 + b"\r\n"


@pytest.fixture
async def transport() -> AsyncIterator[DirectTransport]:
    """With time enough for everything but a hang."""
    timeouts = Timeouts(pool_s=5, connect_s=5, headers_s=10, read_s=10)
    transport = DirectTransport(TransportOptions(timeouts=timeouts))
    yield transport
    await transport.aclose()


def post(url: str, *, body: bytes = b"{}") -> WireRequest:
    return WireRequest(
        method="POST", url=url, headers={"Authorization": "Bearer hs_test_abcdefgh"}, body=body
    )


def saying(*answers: bytes) -> Handler:
    """Answers each request with the next of `answers`, word for word, and then keeps the connection."""
    left = iter(answers)

    async def handler(connection: Connection) -> None:
        while await connection.read_request():
            await connection.send(next(left))

    return handler


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", id="chunk-size-is-no-number"),
        pytest.param(CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", id="chunk-size-is-negative"),
        pytest.param(CHUNKED + b"fffffffffffffffff\r\nhello\r\n", id="chunk-size-overflows"),
        pytest.param(CHUNKED + b"3\r\nhello\r\n0\r\n\r\n", id="chunk-longer-than-it-says"),
        pytest.param(CHUNKED + b"5\nhello\n0\n\n", id="chunk-lines-without-carriage-return"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\n{}{}{}", id="two-lengths"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            id="length-and-chunks",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}", id="negative-length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            id="packed-by-transfer-encoding",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nx a: b\r\ncontent-length: 2\r\n\r\n{}", id="space-in-a-name"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\n{}", id="null-in-a-value"),
        pytest.param(b"HTTP/3.7 200 OK\r\ncontent-length: 2\r\n\r\n{}", id="another-http"),
        pytest.param(
            b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", id="another-protocol"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + FILLER * 400, id="headers-without-end"),
        pytest.param(b"HTTP/1.1 103 Early\r\n" + FILLER + b"\r\n", id="one-early-hint-and-nothing-more"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\n{}", id="unknown-packing"
        ),
    ],
)
async def test_an_answer_that_is_not_clean_http_is_an_error_and_costs_the_connection(answer: bytes) -> None:
    """Malformed where it says so itself, a timeout where it just never goes on; nothing is left of it."""
    timeouts = Timeouts(pool_s=1, connect_s=1, headers_s=0.3, read_s=0.3)
    transport = DirectTransport(TransportOptions(timeouts=timeouts))
    async with serving(saying(answer)) as upstream:
        with pytest.raises(AIClientError) as caught:
            await transport.fetch(post(upstream.url))
        assert caught.value.code in {"upstream_malformed_response", "upstream_timeout"}
        if b"103 Early" not in answer:
            assert isinstance(caught.value, MalformedResponseError)
        await until(lambda: upstream.open == 0)
        assert transport.statistics().in_use == 0
    await transport.aclose()


@pytest.mark.parametrize(
    ("head", "more"),
    [
        pytest.param(b"", b"HTTP/1.1 103 Early\r\n" + FILLER + b"\r\n", id="early-hints"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", FILLER, id="headers"),
        pytest.param(CHUNKED + b"2\r\n{}\r\n0\r\n", FILLER, id="trailers"),
        pytest.param(CHUNKED + b"2;", b"x" * 1000, id="chunk-extension"),
    ],
)
async def test_what_brings_the_answer_no_further_may_not_go_on_for_ever(
    transport: DirectTransport, head: bytes, more: bytes
) -> None:
    """Bounded in bytes, so that no upstream fills our memory or keeps us busy with it."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(head)
        for _ in range(100_000):
            await connection.send(more)

    async with serving(handler) as upstream:
        with pytest.raises(MalformedResponseError):
            await transport.fetch(post(upstream.url))
        await until(lambda: upstream.open == 0)


async def test_interim_answers_are_passed_over(transport: DirectTransport) -> None:
    """100 and 103 are no answers, and their headers are not the answer's."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx-early: yes\r\n\r\n"
    async with serving(saying(interim + OK, OK)) as upstream:
        answers = [await transport.fetch(post(upstream.url)) for _ in range(2)]
        assert upstream.connections == 1
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"{}")] * 2
    assert "x-early" not in answers[0].headers


async def test_trailers_are_read_and_not_taken_for_headers(transport: DirectTransport) -> None:
    """The connection is as good as before."""
    chunked = CHUNKED + b"2;name=value\r\n{}\r\n0\r\nx-status: 99\r\nx-trailer: yes\r\n\r\n"
    async with serving(saying(chunked, OK)) as upstream:
        first = await transport.fetch(post(upstream.url))
        second = await transport.fetch(post(upstream.url))
        assert upstream.connections == 1
    assert (first.body, first.headers, second.body) == (b"{}", {}, b"{}")


async def test_a_header_without_a_value_stays_apart_from_the_next(transport: DirectTransport) -> None:
    """Else the length after it would be lost, and the answer never end."""
    answer = b"HTTP/1.1 200 OK\r\nx-empty:\r\ncontent-length: 2\r\nx-blank: \r\nx-last: \xe9\r\n\r\n{}"
    async with serving(saying(answer)) as upstream:
        answered = await transport.fetch(post(upstream.url))
    assert (answered.body, answered.headers) == (b"{}", {"x-empty": "", "x-blank": "", "x-last": "é"})


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_answer_that_nobody_asked_for_is_nobodys(
    transport: DirectTransport, *, at_once: bool
) -> None:
    """Response smuggling: in one packet with the answer, or later while the connection lies idle."""
    smuggled = b'HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"smuggled": 1}'
    go = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        if connection.server.connections > 1:
            await connection.send(OK)
        elif at_once:
            await connection.send(OK + smuggled)
        else:
            await connection.send(OK)
            await go.wait()
            await connection.send(smuggled)
        await connection.reader.read()

    async with serving(handler) as upstream:
        first = await transport.fetch(post(upstream.url))
        go.set()
        await until(lambda: upstream.open == 0)
        second = await transport.fetch(post(upstream.url))
    assert (first.body, second.body, upstream.connections) == (b"{}", b"{}", 2)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
async def test_a_connection_that_is_said_to_end_is_not_used_again(
    transport: DirectTransport, answer: bytes
) -> None:
    """Even where the upstream leaves it open."""
    async with serving(saying(answer, OK)) as upstream:
        for _ in range(2):
            assert (await transport.fetch(post(upstream.url))).body == b"{}"
        assert upstream.connections == 2


async def test_a_body_without_length_ends_with_the_connection(transport: DirectTransport) -> None:
    """HTTP/1.0's way, still found in front of old servers."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nhalf and ")
        await connection.send(b"half")

    async with serving(handler) as upstream:
        assert (await transport.fetch(post(upstream.url))).body == b"half and half"
        stream = await transport.open(post(upstream.url))
        assert b"".join([piece async for piece in _pieces(stream.read)]) == b"half and half"
        await stream.aclose()


async def _pieces(read: Callable[[], Awaitable[bytes]]) -> AsyncIterator[bytes]:
    while piece := await read():
        yield piece


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_that_have_no_body_do_not_wait_for_one(transport: DirectTransport, status: int) -> None:
    """Whatever length they claim."""
    answer = f"HTTP/1.1 {status} X\r\n\r\n".encode()
    async with serving(saying(answer, OK)) as upstream:
        assert (await transport.fetch(post(upstream.url))).body == b""
        assert (await transport.fetch(post(upstream.url))).body == b"{}"


async def test_an_early_answer_to_a_request_still_going_out_counts(transport: DirectTransport) -> None:
    """A proxy's 413 comes while we write; the rest of the request must not become the next one's beginning."""

    async def handler(connection: Connection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        if connection.server.connections > 1:
            await connection.reader.read(2)
            await connection.send(OK)
        else:
            await connection.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\n{}")
        await connection.reader.read(1)
        await asyncio.get_running_loop().create_future()

    async with serving(handler) as upstream:
        first = await transport.fetch(post(upstream.url, body=b"x" * 30_000_000))
        second = await transport.fetch(post(upstream.url))
    assert (first.status, second.status, upstream.connections) == (413, 200, 2)


async def test_a_slow_upload_is_not_taken_for_a_silent_upstream() -> None:
    """The wait for headers begins anew as long as the request goes out."""
    timeouts = Timeouts(pool_s=1, connect_s=1, headers_s=0.3, read_s=1)
    transport = DirectTransport(TransportOptions(timeouts=timeouts))

    async def handler(connection: Connection) -> None:
        left = 12_000_000
        while left > 0:
            left -= len(await connection.reader.read(2_000_000))
            await asyncio.sleep(0.01)
        await connection.send(OK)

    async with serving(handler) as upstream:
        answer = await transport.fetch(post(upstream.url, body=b"x" * 12_000_000))
    await transport.aclose()
    assert answer.status == 200


async def test_a_connection_closed_while_idle_is_not_used(transport: DirectTransport) -> None:
    """Most servers close what idles; the next request must not notice."""

    async def once(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(OK)

    async with serving(once) as upstream:
        await transport.fetch(post(upstream.url))
        await until(lambda: not transport.idle_connections)
        await transport.fetch(post(upstream.url))
        assert upstream.connections == 2


async def test_a_reader_who_is_slow_is_not_an_upstream_that_is_silent() -> None:
    """While reading is held back, the time is the reader's."""
    timeouts = Timeouts(pool_s=1, connect_s=1, headers_s=1, read_s=0.1)
    transport = DirectTransport(TransportOptions(timeouts=timeouts))

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n" + b"x" * 20_000_000)

    async with serving(handler) as upstream:
        stream = await transport.open(post(upstream.url))
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await until(lambda: loop.time() > started_s + 0.3)
        size = 0
        while piece := await stream.read():
            size += len(piece)
        await stream.aclose()
    await transport.aclose()
    assert size == 20_000_000


async def test_a_packed_stream_is_unpacked_piece_by_piece(transport: DirectTransport) -> None:
    """What can be told of it is told at once."""
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(b"data: one\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
    rest = packer.compress(b"data: two\n\n") + packer.flush()
    go = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + first)
        await go.wait()
        await connection.send(rest)

    async with serving(handler) as upstream:
        stream = await transport.open(post(upstream.url))
        assert await stream.read() == b"data: one\n\n"
        go.set()
        assert [await stream.read(), await stream.read()] == [b"data: two\n\n", b""]
        await stream.aclose()


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (gzip.compress(b"0" * 60_000_000, mtime=0), "grows over"),
        (gzip.compress(b"hello " * 99, mtime=0)[:-9], "without its end"),
        (b"{}", "packed its answer wrongly"),
    ],
)
async def test_a_packed_answer_that_is_a_trap_or_cut_off_is_refused(
    transport: DirectTransport, packed: bytes, reason: str
) -> None:
    """60 KB that would fill 60 MB; an end that HTTP does not know to be missing; not packed at all."""
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n".encode()
    async with serving(saying(head + packed)) as upstream:
        with pytest.raises(MalformedResponseError, match=reason):
            await transport.fetch(post(upstream.url))
    assert transport.statistics().in_use == 0


@pytest.mark.parametrize("path", ["/v1/a b", "/v1/é", "/v1/x\r\nx-evil: 1"])
async def test_a_url_that_would_break_out_of_the_request_line_is_refused(
    transport: DirectTransport, path: str
) -> None:
    """Nothing is sent."""
    async with serving(answer_all) as upstream:
        url = upstream.url.replace("/v1/chat/completions", path)
        with pytest.raises(AIClientError, match="base_url"):
            await transport.fetch(post(url))
        assert upstream.connections == 0
    assert transport.statistics().in_use == 0


async def test_a_stream_cut_off_gives_what_came_and_then_the_error(transport: DirectTransport) -> None:
    """A caller that reads late loses nothing of what the upstream said."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(CHUNKED + b"3\r\none\r\n")

    async with serving(handler) as upstream:
        stream = await transport.open(post(upstream.url))
        await until(lambda: upstream.open == 0)
        assert await stream.read() == b"one"
        with pytest.raises(ConnectionLostError):
            await stream.read()
        await stream.aclose()
    assert transport.statistics().in_use == 0
