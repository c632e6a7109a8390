"""AWS as the tests have it: moto's server in a process of its own, and a proxy before it that counts and can fail."""

import http.client
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


Failure = tuple[int, str]


def throttled(code: str = "RequestLimitExceeded") -> Failure:
    """What EC2 answers to too many requests."""
    return 503, _ec2_error(code, "Request limit exceeded.")


def denied() -> Failure:
    """What EC2 answers to an identity that may not ask."""
    return 403, _ec2_error("UnauthorizedOperation", "You are not authorized to perform this operation.")


def _ec2_error(code: str, message: str) -> str:
    return (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        "<RequestID>1</RequestID></Response>"
    )


@dataclass
class Proxy:
    """What stands before the server.

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
        """How many requests for an action there were."""
        return sum(f"Action={action}" in body for body in self.bodies)


@contextmanager
def proxy_before(aws: Aws) -> Iterator[Proxy]:
    """A proxy before the server, ended with the block."""
    proxy = Proxy()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with proxy.lock:
                proxy.bodies.append(body.decode())
                failure = proxy.decide(body.decode())
            status, answer = (failure[0], failure[1].encode()) if failure else self._passed_on(body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def _passed_on(self, body: bytes) -> tuple[int, bytes]:
            upstream = http.client.HTTPConnection(aws.url.removeprefix("http://"), timeout=60)
            try:
                upstream.request("POST", self.path, body, dict(self.headers.items()))
                response = upstream.getresponse()
                return response.status, response.read()
            finally:
                upstream.close()

        def log_message(self, *words: object) -> None:
            """Nothing: the tests read `bodies`."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join(20)
