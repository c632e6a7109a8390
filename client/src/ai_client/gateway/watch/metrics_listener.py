"""Serves `/metrics` for Prometheus and a status page for people, on a port of its own."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from socket import socket

from ai_client.gateway.http.asgi import Headers, Receive, Scope, Send, respond, respond_json
from ai_client.gateway.http.server import Server
from ai_client.gateway.http.shared import Bounds
from ai_client.gateway.http.sockets import bind_tcp
from ai_client.gateway.watch.observer import Observer
from ai_client.gateway.watch.page import NO_STORE, respond_page
from ai_client.settings import MonitoringSettings

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
# Prometheus and some people who look. It asks for no token, as a rule: whoever opens connections without end must take
# none of the descriptors and the memory that callers of the gateway need.
BOUNDS = Bounds(connections=64, per_caller=64, unread_bytes=16 * 1024 * 1024)


class MetricsListener:
    """Listens where `[monitoring]` says; not at all where metrics are off."""

    def __init__(
        self, monitoring: MonitoringSettings, observer: Observer, *, wall_clock: Callable[[], float]
    ) -> None:
        self._monitoring = monitoring
        self._observer = observer
        self._names = _local_names(monitoring.metrics_host)
        self._server = Server(self._app, wall_clock=wall_clock, bounds=BOUNDS)
        self._socket: socket | None = None

    @property
    def listening(self) -> socket | None:
        """The socket in use; None while it does not listen."""
        return self._socket

    @property
    def port(self) -> int | None:
        """The port in use; None while it does not listen."""
        return None if self._socket is None else int(self._socket.getsockname()[1])

    async def start(self, inherited: socket | None = None) -> None:
        """Bind, or take the socket of the process before this one where it fits, and listen. Raises ListenError."""
        if not self._monitoring.enable_metrics or not self._monitoring.export_prometheus:
            return
        host, port = self._monitoring.metrics_host, self._monitoring.metrics_port
        fits = inherited is not None and port in (0, inherited.getsockname()[1])
        self._socket = inherited if fits else bind_tcp(host, port, setting="[monitoring] metrics_port")
        if self._socket is not None:
            await self._server.start([self._socket])

    async def resume(self) -> None:
        """Listen again after `stop_accepting`."""
        if self._socket is not None:
            await self._server.start([self._socket])

    def stop_accepting(self) -> None:
        """Leave the socket to another process."""
        self._server.stop_accepting()

    async def stop(self) -> None:
        """Close it."""
        if self._socket is not None:
            await self._server.drain(limit_s=1.0)
            self._socket.close()
            self._socket = None

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD") or path not in ("/metrics", "/", "/status.json"):
            await respond_json(send, 404, {"error": "try /metrics, / or /status.json"})
        elif self._names is not None and _host(scope["headers"]) not in self._names:
            # A page in a browser must not read this by giving its own name this address.
            await respond_json(send, 403, {"error": "the Host header does not name this address"})
        elif path != "/" and not self._knows(scope["headers"]):
            await respond_json(send, 401, {"error": "send the token: Authorization: Bearer TOKEN"})
        elif path == "/metrics":
            await respond(send, 200, [(b"content-type", CONTENT_TYPE)], await self._observer.metrics_text())
        elif path == "/status.json":
            await respond_json(send, 200, await self._observer.status(), [NO_STORE])
        else:
            await respond_page(send)

    def _knows(self, headers: Headers) -> bool:
        """Whether the reader sent the token, where one is asked for."""
        wanted = self._observer.settings.monitoring.token_sha256
        if wanted is None:
            return True
        given = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, token = given.partition(b" ")
        digest = hashlib.sha256(token.strip()).hexdigest()
        return scheme.lower() == b"bearer" and hmac.compare_digest(wanted, digest)


def _local_names(host: str) -> frozenset[bytes] | None:
    """How this address may be called; None where it is no loopback address, and Prometheus calls it as it likes."""
    if host not in ("localhost", "127.0.0.1", "::1"):
        return None
    return frozenset((b"localhost", b"127.0.0.1", b"[::1]"))


def _host(headers: Headers) -> bytes:
    value = next((value for name, value in headers if name == b"host"), b"")
    return value[: value.rfind(b"]") + 1] if value.startswith(b"[") else value.partition(b":")[0]
