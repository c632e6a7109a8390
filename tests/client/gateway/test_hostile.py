"""Hostile callers: nothing they send crashes the gateway, and nothing goes upstream unparsed."""

from __future__ import annotations

import asyncio
import json

import pytest

from ai_client.testing import Simulator
from tests.client.service_rig import Rig, until

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
BODY = json.dumps(CHAT).encode()


# One service for all: that it outlives every attack is the point.
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def exchange(rig: Rig, data: bytes) -> bytes:
    """Send bytes as they are over the socket, and read until the gateway closes or is silent."""
    reader, writer = await asyncio.open_unix_connection(str(rig.socket))
    received = b""
    try:
        writer.write(data)
        while piece := await asyncio.wait_for(reader.read(65536), 0.3 if received else 1.0):
            received += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return received


async def assert_alive(rig: Rig) -> None:
    """The gateway still answers."""
    async with rig.client() as client:
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
    assert rig.process.returncode is None


def head(*lines: str, path: str = "/v1/chat/completions", method: str = "POST") -> bytes:
    """A request's head."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="a TLS hello"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", id="an unknown version"),
        pytest.param(b"\r\n" * 5000, id="only newlines"),
        pytest.param(b"POST /v1/chat/completions HTTP/1.1\r\nHost\x00: x\r\n\r\n", id="a zero in a name"),
        pytest.param(head("Content-Length: -5"), id="a negative length"),
        pytest.param(head("Content-Length: 5", "Content-Length: 6") + b"hello!", id="two lengths"),
        pytest.param(
            head("Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
            id="length and chunks at once",
        ),
        pytest.param(
            head("Transfer-Encoding: chunked") + b"zz\r\nhello\r\n0\r\n\r\n", id="a chunk of no size"
        ),
        pytest.param(
            head("Transfer-Encoding: chunked") + b"ffffffffffffffffff\r\n", id="a chunk of endless size"
        ),
        pytest.param(head("Transfer-Encoding: identity, chunked") + b"0\r\n\r\n", id="an odd encoding"),
        pytest.param(head("Transfer-Encoding : chunked") + b"0\r\n\r\n", id="a space before the colon"),
        pytest.param(head(f"X-Big: {'a' * 70_000}", "Content-Length: 0"), id="a huge header"),
        pytest.param(
            head(*(f"X-{number}: a" for number in range(500)), "Content-Length: 0"), id="500 headers"
        ),
        pytest.param(head("Content-Length: 0", path="/" + "a" * 70_000), id="a huge path"),
        pytest.param(head("Content-Length: 0", path="/v1/../control/reload"), id="a path with dots"),
        pytest.param(head("Content-Length: 0", path="//v1/chat/completions"), id="two slashes"),
        pytest.param(head("Content-Length: 0", path="/v1/%2e%2e/control/reload"), id="dots in escapes"),
        pytest.param(head("Content-Length: 0", path="/v1/chat\u00e9"), id="a path that is no ASCII"),
        pytest.param(
            head("Content-Length: 0", path="http://evil.example/v1/models", method="GET"),
            id="a whole address",
        ),
        pytest.param(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n", id="CONNECT"),
        pytest.param(head("Upgrade: websocket", "Connection: Upgrade", method="GET"), id="an upgrade"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="the preface of HTTP/2"),
    ],
)
async def test_bytes_that_are_no_proper_request_get_an_error_and_nothing_goes_upstream(
    rig: Rig, simulator: Simulator, data: bytes
) -> None:
    """A 4xx, or the connection is closed; never a 5xx, never a call."""
    answer = await exchange(rig, data)
    assert not answer or answer.split(b" ", 2)[1].startswith(b"4"), answer[:200]
    assert simulator.counts.arrivals == 0
    await assert_alive(rig)


async def test_a_second_request_in_a_body_is_not_taken_for_a_request(rig: Rig, simulator: Simulator) -> None:
    """Exactly the bytes of the length are the body; what follows is parsed as a request of its own."""
    smuggled = head("Content-Length: 0", path="/control/reload")
    said = [{"role": "user", "content": smuggled.decode()}]
    padded = json.dumps(CHAT | {"messages": said}).encode()
    answer = await exchange(rig, head(f"Content-Length: {len(padded)}", "Connection: close") + padded)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert simulator.counts.arrivals == 1


async def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    """As HTTP/1.1 allows."""
    one = head(f"Content-Length: {len(BODY)}") + BODY
    last = head("Connection: close", path="/v1/models", method="GET")
    answer = await exchange(rig, one + one + last)
    assert answer.count(b"HTTP/1.1 200") == 3
    assert answer.rindex(b'"object":"list"') > answer.rindex(b'"chat.completion"')


async def test_a_body_over_the_limit_is_refused_before_it_is_read(rig: Rig, simulator: Simulator) -> None:
    """By its declared length, and by its bytes where it declares none."""
    declared = await exchange(rig, head("Content-Length: 30000000"))
    assert b" 413 " in declared.splitlines()[0]
    chunk = b"100000\r\n" + b"a" * 0x100000 + b"\r\n"
    chunked = await exchange(rig, head("Transfer-Encoding: chunked") + chunk * 21 + b"0\r\n\r\n")
    assert b" 413 " in chunked.splitlines()[0]
    assert simulator.counts.arrivals == 0
    await assert_alive(rig)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-priority", "10"),
        ("x-priority", "-1"),
        ("x-ai-importance", "huge"),
        ("x-ai-cache", "maybe"),
        ("x-ai-deadline", "nan"),
        ("x-ai-deadline", "0"),
        ("x-ai-deadline", "1_0"),
        ("x-ai-merge", "1"),
        ("x-ai-tenant", "nobody"),
        ("idempotency-key", "a" * 300),
    ],
)
async def test_a_steering_header_that_can_not_be_used_is_named(
    rig: Rig, simulator: Simulator, header: str, value: str
) -> None:
    """400, with the header as `param`."""
    async with rig.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT, headers={header: value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, header)
    assert simulator.counts.arrivals == 0


async def test_a_tenant_may_not_act_for_another(rig: Rig) -> None:
    """A token names one tenant."""
    async with rig.tcp_client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT, headers={"x-ai-tenant": "other"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "tenant_not_allowed")


async def test_the_upstream_key_is_in_no_answer(rig: Rig) -> None:
    """On no route, whatever goes wrong."""
    key = rig.key_file.read_text().strip()
    async with rig.client() as client:
        answers = [
            await client.get("/health"),
            await client.get("/v1/models"),
            await client.get("/etc/passwd"),
            await client.post("/v1/chat/completions", json=CHAT | {"x_simulator_fault": "401"}),
            await client.post("/v1/chat/completions", json=CHAT | {"x_simulator_fault": "reset"}),
            await client.post("/control/reload"),
        ]
    for answer in answers:
        assert key not in answer.text + str(answer.headers)


async def test_many_callers_that_leave_leak_nothing(rig: Rig, simulator: Simulator) -> None:
    """Every upstream call ends, and the gateway is as before."""
    connections = [await asyncio.open_unix_connection(str(rig.socket)) for _ in range(40)]
    for number, (_, writer) in enumerate(connections):
        data = json.dumps(CHAT | {"x_simulator_fault": "hang", "seed": number}).encode()
        writer.write(head(f"Content-Length: {len(data)}") + data)
    await until(lambda: simulator.counts.in_flight == 40, what="40 requests upstream")
    for _, writer in connections:
        writer.transport.abort()
    await until(lambda: simulator.counts.in_flight == 0, what="all of them to be cancelled")
    await assert_alive(rig)


async def test_a_body_that_is_waited_for_is_asked_for(rig: Rig) -> None:
    """`Expect: 100-continue`, as curl sends it with large bodies."""
    reader, writer = await asyncio.open_unix_connection(str(rig.socket))
    writer.write(head(f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(BODY)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_an_http_1_0_caller_gets_an_answer_that_ends_with_the_connection(rig: Rig) -> None:
    """No chunks, which it would not understand."""
    stream = json.dumps(CHAT | {"stream": True}).encode()
    request = head(f"Content-Length: {len(stream)}").replace(b"HTTP/1.1", b"HTTP/1.0")
    answer = await exchange(rig, request + stream)
    assert b"transfer-encoding" not in answer.lower()
    assert answer.endswith(b"data: [DONE]\n\n")


async def test_a_body_in_small_pieces_is_put_together(rig: Rig) -> None:
    """Chunked, a byte at a time, over many packets."""
    reader, writer = await asyncio.open_unix_connection(str(rig.socket))
    writer.write(head("Transfer-Encoding: chunked"))
    for byte in BODY:
        writer.write(b"1\r\n" + bytes([byte]) + b"\r\n")
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_large_body_comes_through(rig: Rig) -> None:
    """Larger than what is read ahead, smaller than the limit."""
    large = CHAT | {"messages": [{"role": "user", "content": "word " * 1_000_000}]}
    async with rig.client() as client:
        assert (await client.post("/v1/chat/completions", json=large)).status_code in (200, 413, 429)


async def test_a_caller_that_reads_slowly_gets_its_whole_stream(rig: Rig) -> None:
    """The gateway waits, and keeps no more than the socket's buffer for it."""
    body = json.dumps(CHAT | {"stream": True, "max_tokens": 8000}).encode()
    reader, writer = await asyncio.open_unix_connection(str(rig.socket), limit=1024)
    writer.write(head(f"Content-Length: {len(body)}", "Connection: close") + body)
    received = 0
    while piece := await reader.read(512):
        received += len(piece)
        await asyncio.sleep(0)
    writer.close()
    assert received > 8000 * 100


async def test_more_requests_than_a_connection_may_send_ahead_end_it(rig: Rig) -> None:
    """What is waited for is bounded."""
    hang = json.dumps(CHAT | {"x_simulator_fault": "hang"}).encode()
    one = head("Content-Length: 0", path="/v1/models", method="GET")
    await exchange(rig, head(f"Content-Length: {len(hang)}") + hang + one * 100)
    await assert_alive(rig)
