"""Serves `/metrics` for Prometheus on a port of its own, so that a busy gateway can still be looked at."""

from __future__ import annotations

import asyncio
import time
from socket import socket

from prometheus_client import CollectorRegistry, generate_latest

from ai_client.gateway.asgi import Receive, Scope, Send, respond, respond_json
from ai_client.gateway.server import Server
from ai_client.gateway.sockets import bind_tcp
from ai_client.settings import MonitoringSettings

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class MetricsListener:
    """Listens where `[monitoring]` says; not at all where metrics are off."""

    def __init__(self, monitoring: MonitoringSettings, registry: CollectorRegistry) -> None:
        self._monitoring = monitoring
        self._registry = registry
        self._server = Server(self._app, wall_clock=time.time)
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
        if scope["path"] == "/metrics" and scope["method"] in ("GET", "HEAD"):
            text = await asyncio.to_thread(generate_latest, self._registry)
            await respond(send, 200, [(b"content-type", CONTENT_TYPE)], text)
        else:
            await respond_json(send, 404, {"error": "only /metrics is here"})
