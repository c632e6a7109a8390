"""The server beside a second parser (h11): what it accepts, both read the same way.

Two parsers that read one text differently are what request smuggling lives on. `FUZZ_HTTP=20000` runs longer.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai_client.gateway.http.asgi import Receive, Scope, Send, respond
from tests.client.gateway.echo_app import sent, statuses
from tests.client.gateway.gateway_socket import served

END = b"GET /end-of-it HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
EXAMPLES = int(os.environ.get("FUZZ_HTTP", "150"))


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One loop for all examples."""
    with asyncio.Runner() as made:
        yield made


_METHODS = st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"get", b"P OST", b"", b"M-SEARCH"])
_TARGETS = st.sampled_from([b"/", b"/a?b=c", b"/%00", b"/\xc3\xa9", b"*", b"x", b"http://x/", b"/ a", b"//x"])
_VERSIONS = st.sampled_from(
    [b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 "]
)
_NAMES = st.sampled_from(
    [
        b"Content-Length",
        b"Transfer-Encoding",
        b"Host",
        b"Connection",
        b"X-A",
        b"Expect",
        b"content-length ",
        b" X",
        b"",
    ]
)
_VALUES = st.sampled_from(
    b"5|0|05|+5|5,5|chunked|Chunked|chunked, chunked|gzip, chunked|identity|x|close|keep-alive|100-continue|upgrade"
    b"||\t5|5\t|a\x00b|\xff|5\x0b".split(b"|")
)
_ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\n\t", b"\n\r"])
_CHUNKS = (b"5", b"05", b"5 ", b"5;e=1", b"0x5", b"6", b"4", b"", b"-5")
_TRAILERS = (b"", b"X-T: 1\r\n", b"Host: y\r\n", b"Content-Length: 3\r\n", b"X T\r\n")
_BODIES = st.one_of(
    st.sampled_from(
        [b"", b"hello", b"0\r\n\r\n", b"5\nhello\n0\n\n", b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"]
    ),
    st.builds(
        lambda size, trailer: size + b"\r\nhello\r\n0\r\n" + trailer + b"\r\n",
        st.sampled_from(_CHUNKS),
        st.sampled_from(_TRAILERS),
    ),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Something like a request."""
    lines = [b"%b %b %b" % (draw(_METHODS), draw(_TARGETS), draw(_VERSIONS))]
    if draw(st.integers(0, 9)):
        lines.append(b"Host: x")
    lines += draw(st.lists(st.builds(lambda n, v: n + b": " + v, _NAMES, _VALUES), max_size=3))
    text = b"".join(line + draw(_ENDS) for line in lines) + draw(_ENDS)
    data = bytearray(text + draw(_BODIES))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=2)):
        if draw(st.booleans()) and at < len(data):
            data[at] = byte
    return bytes(data)


def by_h11(data: bytes) -> list[tuple[str, str, bytes]] | None:
    """Method, path and body of each request, as h11 reads them; None where it refuses any of it."""
    found: list[tuple[str, str, bytes]] = []
    # Newlines before a request may be passed over (RFC 9112, 2.2): h11 does not.
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data.lstrip(b"\r\n"))
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                path = event.target.partition(b"?")[0].decode("latin-1")
                found.append((event.method.decode("latin-1"), path, b""))
            elif isinstance(event, h11.Data):
                method, path, body = found[-1]
                found[-1] = (method, path, body + bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                headers = [(b"content-length", b"0")]
                connection.send(h11.Response(status_code=200, headers=headers))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return found
                connection.start_next_cycle()
            else:
                return found
    except h11.ProtocolError:
        return None


class Recorder:
    """An application that notes what it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.seen.append((scope["method"], scope["path"], body))
        await respond(send, 200, [], b"")


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=requests())
def test_what_is_accepted_is_read_as_a_second_parser_reads_it(runner: asyncio.Runner, data: bytes) -> None:
    """Methods, paths and bodies, one after another; nothing is a 5xx, and every connection ends."""
    app = Recorder()
    with tempfile.TemporaryDirectory() as folder:
        answers = runner.run(_answers(app, Path(folder) / "socket", data + END))
    assert all(status < 500 or status == 505 for status in statuses(answers)), answers
    # What h11 refuses altogether is a matter of taste (it takes no newline before a request); framing is none.
    others = by_h11(data + END)
    if others is not None:
        assert app.seen == others[: len(app.seen)]


async def _answers(app: Recorder, path: Path, data: bytes) -> bytes:
    async with served(app, path):
        return await sent(path, [data])
