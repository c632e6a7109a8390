"""What the applier asks the service, over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from applier.on_host.errors import ApplyError
from applier.on_host.gate import fault_of
from applier.on_host.host import Host
from applier.on_host.service_socket import converse

NOT_CACHED = b'{"error": {"code": "not_cached"}}'


def answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


@contextmanager
def service(listening: socket.socket, *answers: bytes) -> Iterator[list[bytes]]:
    """Gives each connection one answer, and keeps what was asked."""
    asked: list[bytes] = []
    listening.listen()

    def serve() -> None:
        for text in answers:
            connection, _ = listening.accept()
            with closing(connection):
                asked.append(connection.recv(1 << 16))
                connection.sendall(text)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        thread.join(10)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A Unix socket and its path."""
    path = str(tmp_path / "gateway.sock")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)
        yield made, path


def test_the_question_goes_to_the_gateway_and_never_upstream(listening: tuple[socket.socket, str]) -> None:
    """A chat request that only the cache may answer: it costs nothing."""
    made, path = listening
    with service(made, answer(504, NOT_CACHED)) as asked:
        assert Host().question(path) == (504, NOT_CACHED)
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"X-AI-Cache: only-if-cached" in head
    assert f"Content-Length: {len(body)}".encode() in head


def test_a_question_that_gets_no_answer_is_asked_again(listening: tuple[socket.socket, str]) -> None:
    """One connection that breaks is no verdict, two are."""
    made, path = listening
    with service(made, b"", answer(504, NOT_CACHED)):
        assert fault_of(*Host().question(path)) == ""
    with service(made, b"", b""):
        assert "the service does not answer" in fault_of(*Host().question(path))


def test_metrics_are_read_from_their_port() -> None:
    """Text with status 200; anything else is an error that names the address."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        address = f"127.0.0.1:{made.getsockname()[1]}"
        with service(made, answer(200, b"a 1\n"), answer(403, b"")) as asked:
            assert Host().metrics(address) == "a 1\n"
            with pytest.raises(ApplyError, match=f"{address}: answers 403"):
                Host().metrics(address)
        assert asked[0].startswith(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n")
    with pytest.raises(ApplyError, match="does not answer"):
        converse(address, "GET /metrics", timeout_s=1)


def test_what_was_sent_in_a_minute_is_read_from_the_status(listening: tuple[socket.socket, str]) -> None:
    """Unknown where the service does not tell."""
    made, path = listening
    with service(made, answer(200, b'{"limits": {"rpm_used": 17}}'), answer(200, b"{}"), b""):
        assert [Host().sent_rpm(path) for _ in range(3)] == [17, None, None]
