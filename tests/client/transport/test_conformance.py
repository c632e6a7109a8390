"""What every transport must do, run over all of them against real servers."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme

from ai_client.errors import (
    ClientClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    MalformedResponseError,
    PoolTimeout,
    TLSVerificationError,
    TransportError,
    TransportTimeoutError,
)
from ai_client.transport.aiohttp import AiohttpTransport
from ai_client.transport.base import Timeouts, Transport, TransportOptions, WireRequest
from ai_client.transport.direct import default_transport
from ai_client.transport.httpx import HttpxTransport
from tests.client.scheduling import until
from tests.client.transport.upstreams import OK, Connection, answer_all, never_answer, serving

Make = Callable[..., Transport]
KINDS: dict[str, Callable[[TransportOptions], Transport]] = {
    "direct": default_transport,
    "aiohttp": AiohttpTransport,
    "httpx": lambda options: HttpxTransport(options=options),
}
SHORT = Timeouts(pool_s=0.2, connect_s=0.2, headers_s=0.2, read_s=0.2)


@pytest.fixture(params=list(KINDS))
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes transports of one kind, and closes them."""
    made: list[Transport] = []

    def build(**options: object) -> Transport:
        chosen = TransportOptions(**options)  # type: ignore[arg-type]
        transport = KINDS[request.param](chosen)
        made.append(transport)
        return transport

    yield build
    for transport in made:
        await transport.aclose()


def post(url: str, *, body: bytes = b"{}", **more: object) -> WireRequest:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer hs_test_abcdefgh"}
    return WireRequest(method="POST", url=url, headers=headers, body=body, **more)  # type: ignore[arg-type]


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
            await asyncio.sleep(0.08)
            await connection.send(b"x")

    timeouts = Timeouts(pool_s=1, connect_s=1, headers_s=1, read_s=0.3)
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
        for _ in range(100):
            if seen == sent:
                break
            seen = sent
            await asyncio.sleep(0.05)
        assert seen == sent < 40_000_000
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


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, str]:
    """A CA of our own, and its PEM file."""
    ca = trustme.CA()
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return ca, str(path)


def server_tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def test_a_custom_ca_is_trusted(make: Make, authority: tuple[trustme.CA, str]) -> None:
    """Beside the host's own store."""
    ca, path = authority
    async with serving(answer_all, tls=server_tls(ca.issue_cert("localhost"))) as upstream:
        answer = await make(ca_path=path).fetch(post(upstream.url))
    assert answer.status == 200


async def test_a_tls_connection_is_kept_and_used_again(make: Make, authority: tuple[trustme.CA, str]) -> None:
    """A handshake for each request would cost more than the request."""
    ca, path = authority
    async with serving(answer_all, tls=server_tls(ca.issue_cert("localhost"))) as upstream:
        transport = make(ca_path=path)
        for body in (b"{}", b"x" * 300_000, b"{}"):
            await transport.fetch(post(upstream.url, body=body))
        assert (upstream.connections, len(upstream.requests)) == (1, 3)
        await transport.aclose()


async def test_an_unknown_ca_is_refused_with_its_reason(
    make: Make, authority: tuple[trustme.CA, str]
) -> None:
    """Nothing was sent; the reason is OpenSSL's, the remedy ours."""
    ca, _ = authority
    async with serving(answer_all, tls=server_tls(ca.issue_cert("localhost"))) as upstream:
        with pytest.raises(TLSVerificationError, match="Set cert_path") as caught:
            await make().fetch(post(upstream.url))
    assert "self-signed certificate" in caught.value.verify_reason or "issuer" in caught.value.verify_reason
    assert "TLSv1.3" in caught.value.tls_version
    assert not caught.value.sent
    assert upstream.requests == []


async def test_a_certificate_for_another_host_is_refused(
    make: Make, authority: tuple[trustme.CA, str]
) -> None:
    """The name counts, not only the signature."""
    ca, path = authority
    async with serving(answer_all, tls=server_tls(ca.issue_cert("elsewhere.test"))) as upstream:
        with pytest.raises(TLSVerificationError, match=r"[Hh]ostname mismatch"):
            await make(ca_path=path).fetch(post(upstream.url))


async def test_verification_can_be_turned_off(make: Make, authority: tuple[trustme.CA, str]) -> None:
    """verify_ssl = false, for those who must."""
    ca, _ = authority
    async with serving(answer_all, tls=server_tls(ca.issue_cert("localhost"))) as upstream:
        answer = await make(verify_tls=False).fetch(post(upstream.url))
    assert answer.status == 200


async def test_a_ca_file_that_is_none_is_a_configuration_error(make: Make, tmp_path: Path) -> None:
    """Said when the transport is made, with the path."""
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    with pytest.raises(ConfigurationError, match=r"cert_path .*ca\.pem"):
        make(ca_path=str(broken))
    with pytest.raises(ConfigurationError, match=r"cert_path .*missing"):
        make(ca_path=str(tmp_path / "missing"))


async def test_plain_requests_go_to_the_proxy_with_the_whole_url(make: Make) -> None:
    """And with the proxy's own password, which the upstream never sees."""
    async with serving(answer_all) as proxy:
        transport = make(proxy_url=f"http://user:secret@localhost:{proxy.port}")
        answer = await transport.fetch(post("http://upstream.invalid/v1/models"))
    assert answer.status == 200
    request = proxy.requests[0]
    assert request.startswith(b"POST http://upstream.invalid/v1/models HTTP/1.1")
    assert b"proxy-authorization: basic" in request.lower()


async def test_tls_goes_through_the_proxy_in_a_tunnel(make: Make, authority: tuple[trustme.CA, str]) -> None:
    """CONNECT, then TLS to the upstream itself: the proxy never sees the request."""
    ca, path = authority

    async def tunnel(connection: Connection) -> None:
        head = await connection.read_request()
        port = int(head.split()[1].rpartition(b":")[2])
        reader, writer = await asyncio.open_connection("localhost", port)
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(connection.reader, writer), pump(reader, connection.writer))

    async with (
        serving(answer_all, tls=server_tls(ca.issue_cert("localhost"))) as upstream,
        serving(tunnel) as proxy,
    ):
        transport = make(proxy_url=f"http://localhost:{proxy.port}", ca_path=path)
        answer = await transport.fetch(post(upstream.url))
        await transport.aclose()
    assert answer.status == 200
    assert proxy.requests[0].startswith(b"CONNECT localhost:")
    assert b"hs_test" not in b"".join(proxy.requests)


async def test_a_proxy_that_refuses_is_a_connect_error(make: Make, authority: tuple[trustme.CA, str]) -> None:
    """Nothing reached the upstream."""

    async def refuse(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")

    async with serving(refuse) as proxy:
        transport = make(proxy_url=f"http://localhost:{proxy.port}")
        with pytest.raises(ConnectError, match="407") as caught:
            await transport.fetch(post("https://localhost:1/v1"))
    assert not caught.value.sent


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
