"""What every transport must do, run over all of them against real servers."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from ai_client.errors import (
    ClientClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    MalformedResponseError,
    PoolTimeout,
    TransportError,
    TransportTimeoutError,
)
from ai_client.transport.base import Timeouts, WireRequest
from tests.client.admission.scheduling import until
from tests.client.transport.calls import Make, post
from tests.client.transport.upstreams import OK, Connection, answer_all, never_answer, serving

pytestmark = pytest.mark.slow

SHORT = Timeouts(pool_s=0.2, connect_s=0.2, headers_s=0.2, read_s=0.2)


async def test_a_request_and_its_answer_go_through_whole(make: Make) -> None:
    """Method, path, headers and body there; status, lower-case headers and body back."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 201 Created\r\nX-Request-ID: r1\r\nContent-Length: 5\r\n\r\nhello")

    async with serving(handler) as upstream:
        transport = make()
        answer = await transport.fetch(post(upstream.url, body=b'{"a": 1}'))
    assert (answer.status, answer.body, answer.headers) == (201, b"hello", {"x-request-id": "r1"})
    request = upstream.requests[0]
    assert request.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert request.endswith(b'\r\n\r\n{"a": 1}')
    assert b"authorization: bearer hs_test_abcdefgh" in request.lower()
    assert transport.statistics().in_use == 0


async def test_bytes_of_a_header_go_on_as_they_came(make: Make) -> None:
    """aio-libs/aiohttp#3279: a file's name in UTF-8, in Latin-1 or in neither; each byte is a letter."""
    values = ["attachment; filename=€.mp3".encode(), b"attachment; filename=\xe9.mp3", b"\xff\xfe\x80"]

    async def handler(connection: Connection) -> None:
        for value in values:
            await connection.read_request()
            head = b"HTTP/1.1 200 OK\r\ncontent-disposition: " + value + b"\r\ncontent-length: 2\r\n\r\n{}"
            await connection.send(head)

    async with serving(handler) as upstream:
        transport = make(pool_size=1)
        for value in values:
            answer = await transport.fetch(post(upstream.url))
            assert answer.headers["content-disposition"].encode("latin-1") == value


async def test_a_get_has_no_body(make: Make) -> None:
    """The models endpoint is a plain GET."""
    async with serving(answer_all) as upstream:
        answer = await make().fetch(WireRequest(method="GET", url=upstream.url, headers={}))
    assert answer.status == 200
    assert upstream.requests[0].endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", [301, 400, 401, 404, 429, 500, 503])
async def test_no_status_is_an_error_here(make: Make, status: int) -> None:
    """What a status means is decided elsewhere; redirects are not followed."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        head = f"HTTP/1.1 {status} X\r\nlocation: /other\r\nretry-after: 3\r\ncontent-length: 2\r\n\r\n"
        await connection.send(head.encode() + b"no")

    async with serving(handler) as upstream:
        answer = await make().fetch(post(upstream.url))
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (status, b"no", "3")
    assert len(upstream.requests) == 1


async def test_a_compressed_answer_is_unpacked(make: Make) -> None:
    """Nobody behind the transport needs to know; the header goes with the encoding."""
    packed = gzip.compress(b'{"packed": true}')

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n"
        await connection.send(head.encode() + packed)

    async with serving(handler) as upstream:
        answer = await make().fetch(post(upstream.url))
    assert answer.body == b'{"packed": true}'
    assert "content-encoding" not in answer.headers


async def test_a_connection_is_kept_and_used_again(make: Make) -> None:
    """Ten requests, one connection."""
    async with serving(answer_all) as upstream:
        transport = make()
        for _ in range(10):
            await transport.fetch(post(upstream.url))
    assert (upstream.connections, len(upstream.requests)) == (1, 10)


async def test_no_more_idle_connections_are_kept_than_asked(make: Make) -> None:
    """Eight at once, two kept."""
    async with serving(answer_all) as upstream:
        transport = make(keepalive_connections=2)
        await asyncio.gather(*(transport.fetch(post(upstream.url)) for _ in range(8)))
        await until(lambda: upstream.open <= 2)
        assert upstream.open == 2


async def test_an_idle_connection_is_dropped_in_time(make: Make) -> None:
    """Past its expiry a new one is made."""
    async with serving(answer_all) as upstream:
        transport = make(keepalive_expiry_s=0.05)
        await transport.fetch(post(upstream.url))
        started = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() > started + 0.1)
        await transport.fetch(post(upstream.url))
    assert upstream.connections == 2


async def test_sent_is_told_once_when_the_request_is_written(make: Make) -> None:
    """Not while it connects, and before the answer."""
    told: list[int] = []

    async def handler(connection: Connection) -> None:
        while await connection.read_request():
            assert len(told) == len(connection.server.requests)
            await connection.send(OK)

    async with serving(handler) as upstream:
        transport = make()
        for _ in range(2):
            await transport.fetch(post(upstream.url, on_sent=lambda: told.append(1)))
    assert len(told) == 2


async def test_no_listener_is_a_connect_error(make: Make) -> None:
    """Nothing was sent, so it is safe to try again."""
    async with serving(answer_all) as upstream:
        pass
    told: list[int] = []
    with pytest.raises(ConnectError) as caught:
        await make().fetch(post(upstream.url, on_sent=lambda: told.append(1)))
    assert not caught.value.sent
    assert told == []


async def test_an_unknown_name_is_a_connect_error(make: Make) -> None:
    """`.invalid` never resolves (RFC 6761)."""
    with pytest.raises(ConnectError, match=r"upstream\.invalid"):
        await make().fetch(post("http://upstream.invalid/v1"))


async def test_a_base_url_that_is_none_is_a_configuration_error(make: Make) -> None:
    """Not a failure of the network."""
    with pytest.raises((ConfigurationError, ConnectError)):
        await make().fetch(post("ftp://localhost/v1"))


async def test_a_connection_that_takes_too_long_times_out(make: Make) -> None:
    """TLS that is never answered: the connect phase, nothing sent."""

    async def handler(connection: Connection) -> None:
        await connection.reader.read()

    async with serving(handler) as upstream:
        with pytest.raises(TransportTimeoutError) as caught:
            await make(timeouts=SHORT).fetch(post(upstream.url.replace("http:", "https:")))
    assert (caught.value.phase, caught.value.timeout_s, caught.value.sent) == ("connect", 0.2, False)


async def test_headers_that_do_not_come_time_out(make: Make) -> None:
    """It was sent, so it may have been executed."""
    async with serving(never_answer) as upstream:
        transport = make(timeouts=SHORT)
        with pytest.raises(TransportTimeoutError) as caught:
            await transport.fetch(post(upstream.url))
        assert (caught.value.phase, caught.value.sent) == ("headers", True)
        assert transport.statistics().in_use == 0
        await until(lambda: upstream.open == 0)


async def test_a_large_body_that_nobody_reads_times_out(make: Make) -> None:
    """The write blocks; the wait for headers is over all the same."""

    async def deaf(connection: Connection) -> None:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.get_running_loop().create_future()

    async with serving(deaf) as upstream:
        with pytest.raises(TransportError) as caught:
            await make(timeouts=SHORT).fetch(post(upstream.url, body=b"x" * 30_000_000))
    assert caught.value.sent


async def test_silence_within_the_body_times_out(make: Make) -> None:
    """The read timeout counts from byte to byte."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await connection.reader.read()

    timeouts = Timeouts(pool_s=1, connect_s=1, headers_s=30, read_s=0.2)
    async with serving(handler) as upstream:
        with pytest.raises(TransportTimeoutError) as caught:
            await asyncio.wait_for(make(timeouts=timeouts).fetch(post(upstream.url)), 10)
    assert (caught.value.phase, caught.value.timeout_s) == ("read", 0.2)


async def test_a_slow_body_that_keeps_coming_does_not_time_out(make: Make) -> None:
    """Longer than the read timeout as a whole, never silent for so long."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.2)
            await connection.send(b"x")

    timeouts = Timeouts(pool_s=1, connect_s=1, headers_s=1, read_s=1)
    async with serving(handler) as upstream:
        answer = await make(timeouts=timeouts).fetch(post(upstream.url))
    assert answer.body == b"x" * 8


async def test_a_full_pool_times_out_with_its_size_and_use(make: Make) -> None:
    """PoolTimeout tells the facts; nothing was sent."""
    async with serving(never_answer) as upstream:
        transport = make(pool_size=2, timeouts=Timeouts(pool_s=0.1, connect_s=1, headers_s=30, read_s=1))
        busy = [asyncio.ensure_future(transport.fetch(post(upstream.url))) for _ in range(2)]
        await until(lambda: len(upstream.requests) == 2)
        with pytest.raises(PoolTimeout) as caught:
            await transport.fetch(post(upstream.url))
        assert (caught.value.size, caught.value.in_use, caught.value.sent) == (2, 2, False)
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        assert transport.statistics() == type(transport.statistics())(2, 0, 0)


async def test_those_who_wait_for_the_pool_are_served_in_order(make: Make) -> None:
    """First come, first served; one who is cancelled holds up nobody."""
    async with serving(answer_all) as upstream:
        transport = make(pool_size=1)
        stream = await transport.open(post(upstream.url))
        done: list[int] = []

        async def fetch(number: int) -> None:
            await transport.fetch(post(upstream.url))
            done.append(number)

        tasks = [asyncio.ensure_future(fetch(number)) for number in range(4)]
        await until(lambda: transport.statistics().waiting == 4)
        tasks[1].cancel()
        await stream.aclose()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert done == [0, 2, 3]
    assert transport.statistics().in_use == 0


async def test_a_reset_is_a_lost_connection(make: Make) -> None:
    """It was sent, so it may have been executed."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        connection.reset()

    async with serving(handler) as upstream:
        with pytest.raises(ConnectionLostError) as caught:
            await make().fetch(post(upstream.url))
    assert caught.value.sent


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
    ],
)
async def test_an_answer_that_is_cut_off_is_a_lost_connection(make: Make, answer: bytes) -> None:
    """Before the headers, within a body of known length, within a chunk."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(answer)

    async with serving(handler) as upstream:
        transport = make()
        with pytest.raises(ConnectionLostError) as caught:
            await transport.fetch(post(upstream.url))
    assert caught.value.sent
    assert transport.statistics().in_use == 0


async def test_an_answer_that_is_not_http_is_malformed(make: Make) -> None:
    """Not a lost connection: something else listens there."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"\x00\x01\x02 this is no HTTP\r\n\r\n")

    async with serving(handler) as upstream:
        with pytest.raises(MalformedResponseError, match="did not answer in HTTP"):
            await make().fetch(post(upstream.url))


async def test_a_cancelled_call_drops_its_connection(make: Make) -> None:
    """The upstream sees that nobody waits any more; the pool has its place back."""
    async with serving(never_answer) as upstream:
        transport = make()
        task = asyncio.ensure_future(transport.fetch(post(upstream.url)))
        await until(lambda: len(upstream.requests) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: upstream.open == 0)
        assert transport.statistics().in_use == 0


async def test_a_stream_comes_piece_by_piece(make: Make) -> None:
    """Each piece is there before the next one is sent; at the end the connection is kept."""
    go = asyncio.Event()

    async def handler(connection: Connection) -> None:
        while await connection.read_request():
            await connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
            await go.wait()
            await connection.send(b"3\r\ntwo\r\n0\r\n\r\n")

    async with serving(handler) as upstream:
        transport = make()
        for _ in range(2):
            go.clear()
            stream = await transport.open(post(upstream.url))
            assert await stream.read() == b"one"
            assert transport.statistics().in_use == 1
            go.set()
            assert [await stream.read(), await stream.read()] == [b"two", b""]
            await stream.aclose()
            await stream.aclose()
    assert upstream.connections == 1
    assert transport.statistics().in_use == 0


async def test_closing_a_stream_early_drops_its_connection(make: Make) -> None:
    """The upstream must not go on generating for nobody."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await connection.reader.read()

    async with serving(handler) as upstream:
        transport = make()
        stream = await transport.open(post(upstream.url))
        assert await stream.read() == b"one"
        await stream.aclose()
        await until(lambda: upstream.open == 0)
    assert transport.statistics().in_use == 0


async def test_a_reader_that_waits_holds_the_sender_back(make: Make) -> None:
    """100 MB are on offer; what nobody reads is not taken off the wire."""
    sent = 0

    async def handler(connection: Connection) -> None:
        nonlocal sent
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        for _ in range(1000):
            await connection.send(b"x" * 100_000)
            sent += 100_000

    async with serving(handler) as upstream:
        stream = await make().open(post(upstream.url))
        seen = -1
        while seen != sent:
            seen = sent
            await asyncio.sleep(0.05)
        assert sent < 40_000_000
        await stream.aclose()


async def test_a_stream_that_breaks_off_says_so(make: Make) -> None:
    """After the pieces that came."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")

    async with serving(handler) as upstream:
        stream = await make().open(post(upstream.url))
        assert await stream.read() == b"one"
        with pytest.raises(ConnectionLostError):
            await stream.read()
        await stream.aclose()


async def test_a_closed_transport_refuses_calls(make: Make) -> None:
    """And closing it twice is fine."""
    async with serving(answer_all) as upstream:
        transport = make()
        await transport.fetch(post(upstream.url))
        await transport.aclose()
        await transport.aclose()
        await until(lambda: upstream.open == 0)
        with pytest.raises(ClientClosedError):
            await transport.fetch(post(upstream.url))


async def test_closing_fails_what_is_in_flight(make: Make) -> None:
    """With an error of ours, not by hanging."""
    async with serving(never_answer) as upstream:
        transport = make()
        task = asyncio.ensure_future(transport.fetch(post(upstream.url)))
        await until(lambda: len(upstream.requests) == 1)
        await transport.aclose()
        with pytest.raises((TransportError, ClientClosedError)):
            await asyncio.wait_for(task, 5)
