"""AWS as the tests have it: moto's server in a process of its own, and a proxy before it that counts and can fail."""

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import boto3
import pytest

REGION = "eu-central-1"
ACCOUNT = "123456789012"  # whose every identity of moto's is
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests-only", "AWS_SECRET_ACCESS_KEY": "tests-only-secret"}


def environment(url: str) -> dict[str, str]:
    """Variables that lead every AWS client to a server of the tests, and away from this user's own account."""
    return {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }


@dataclass
class Aws:
    """A running server.

    Attributes:
        url: where it listens.
        process: the server itself, for tests that end it.
    """

    url: str
    process: "subprocess.Popen[bytes]"
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def client(self, service: str, region: str = REGION) -> Any:
        """A client that talks to it, whatever this process's environment says; made once, since that is slow."""
        if (service, region) not in self._clients:
            session = boto3.Session(
                aws_access_key_id="tests-only", aws_secret_access_key="tests-only", region_name=region
            )
            self._clients[service, region] = session.client(service, endpoint_url=self.url)
        return self._clients[service, region]

    def empty(self) -> None:
        """Forgets everything that was made in it."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        connection.request("POST", "/moto-api/reset")
        assert connection.getresponse().status == 200
        connection.close()

    def end(self) -> None:
        """Ends the server: its backend has gone away."""
        self.process.terminate()
        self.process.wait(20)


@contextmanager
def moto_server(port: int | None = None) -> Iterator[Aws]:
    """An empty AWS, ended with the block.

    Args:
        port: where it listens; a free port where None.
    """
    port = port or free_port()
    argv = [str(Path(sys.executable).parent / "moto_server"), "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile() as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            _wait_for(port, process)
            yield Aws(f"http://127.0.0.1:{port}", process)
        finally:
            process.kill()


def free_port() -> int:
    """A port on the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: "subprocess.Popen[bytes]", within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, "moto's server ended at once"
            assert time.monotonic() < deadline, f"nothing listens on port {port}"
            time.sleep(0.05)
        else:
            return


@dataclass(frozen=True)
class Failure:
    """An answer that a server did not give; status 0 is none at all, and the connection is closed."""

    status: int
    body: str = ""


AWAY = Failure(0)


def ec2_failure(code: str, *, status: int) -> Failure:
    """How EC2 says no: `RequestLimitExceeded` with 503, `UnauthorizedOperation` with 403."""
    error = f"<Error><Code>{code}</Code><Message>said by the tests</Message></Error>"
    return Failure(status, f"<Response><Errors>{error}</Errors><RequestID>1</RequestID></Response>")


def kms_failure(code: str) -> Failure:
    """How KMS says no: `AccessDeniedException`, `DisabledException`."""
    return Failure(400, json.dumps({"__type": code, "message": "said by the tests"}))


@dataclass
class Proxy:
    """What stands before a server.

    Attributes:
        url: where it listens.
        decide: for the body of each request a failure to answer with, or None to pass it on.
        bodies: body of every request so far.
    """

    url: str = ""
    decide: Callable[[str], Failure | None] = lambda body: None
    bodies: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=Lock)

    def asked(self, action: str) -> int:
        """How many requests for an action of EC2 there were."""
        return sum(f"Action={action}" in body for body in self.bodies)


@contextmanager
def proxy_before(aws: Aws) -> Iterator[Proxy]:
    """A proxy before the server, ended with the block."""
    proxy = Proxy()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy, aws.url.removeprefix("http://"))) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever)
        thread.start()
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join(20)


def _handler(proxy: Proxy, upstream: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with proxy.lock:
                proxy.bodies.append(body.decode(errors="replace"))
                failure = proxy.decide(proxy.bodies[-1])
            if failure is None:
                self._pass_on(body)
            elif failure == AWAY:
                self.close_connection = True
            else:
                self._answer(failure.status, {}, failure.body.encode())

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815  (names that http.server calls)

        def _pass_on(self, body: bytes) -> None:
            connection = http.client.HTTPConnection(upstream, timeout=60)
            try:
                connection.request(self.command, self.path, body, dict(self.headers.items()))
                response = connection.getresponse()
                self._answer(response.status, dict(response.getheaders()), response.read())
            finally:
                connection.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                    self.send_header(name, value)
            # The answer to HEAD tells the length of a body that it does not have.
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            """Nothing: the tests read `bodies`."""

    return Handler


@pytest.fixture(scope="session")
def aws() -> Iterator[Aws]:
    """One for all that clear it."""
    with moto_server() as server:
        yield server


@pytest.fixture
def account(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """An empty account, which this process's environment leads to."""
    aws.empty()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment(aws.url).items():
        monkeypatch.setenv(name, value)
    return aws
