"""The exporter of spans that `[traces]` asks for, on a transport of its own."""

from __future__ import annotations

import time

from ai_client import __version__
from ai_client.contract.events import EventStream
from ai_client.settings import TracesSettings
from ai_client.traces.exporter import KINDS, SpanExporter
from ai_client.transport.base import TransportOptions
from ai_client.transport.direct import DirectTransport


class OwnSpanExporter:
    """An exporter with its transport."""

    def __init__(self, exporter: SpanExporter, transport: DirectTransport) -> None:
        self._exporter = exporter
        self._transport = transport

    async def aclose(self) -> None:
        """Sends what waits, and closes the connections."""
        await self._exporter.aclose()
        await self._transport.aclose()


def make_exporter(settings: TracesSettings, *, events: EventStream) -> OwnSpanExporter | None:
    """One that listens from now on; None where no endpoint is set."""
    if settings.otlp_endpoint is None:
        return None
    transport = DirectTransport(TransportOptions(pool_size=1, keepalive_connections=1))
    exporter = SpanExporter(
        settings.otlp_endpoint,
        service=settings.service_name,
        version=__version__,
        sample_share=settings.sample_share,
        transport=transport,
        events=events,
        wall_clock=time.time,
    )
    events.subscribe(exporter, *KINDS)
    return OwnSpanExporter(exporter, transport)
