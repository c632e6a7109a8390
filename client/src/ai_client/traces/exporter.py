"""Sends spans by OTLP over HTTP, in JSON, in the background: a collector that fails costs spans, never a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from ai_client.contract.events import Event, EventStream, Failed, Settled, StoreDegraded
from ai_client.errors import AIClientError
from ai_client.platform.json_text import write_json
from ai_client.platform.loop import RunningLoop
from ai_client.traces.context import span_context
from ai_client.traces.spans import export_of, span_of
from ai_client.transport.base import Timeouts, Transport, WireRequest

KINDS: Final = (Settled, Failed)
_SEND_EVERY_S: Final = 2.0
_MOST_WAITING: Final = 4_096
_MOST_AT_ONCE: Final = 512
_CLOSING_S: Final = 2.0
_TIMEOUTS: Final = Timeouts(pool_s=2.0, connect_s=2.0, headers_s=5.0, read_s=5.0)


class SpanExporter:
    """A listener of the client's events. `transport` is closed by whoever made it.

    Invariant: at most `_MOST_WAITING` spans wait; the newest are dropped beyond that.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        service: str,
        version: str,
        sample_share: float,
        transport: Transport,
        events: EventStream,
        wall_clock: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._service = service
        self._version = version
        self._sample_share = sample_share
        self._transport = transport
        self._events = events
        self._wall = wall_clock
        self._waiting: list[dict[str, Any]] = []
        self._loop = RunningLoop()
        self._sending: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Spans that no collector got.
        self.dropped = 0

    def __call__(self, event: Event) -> None:
        """The listener."""
        if not isinstance(event, Settled | Failed):
            return
        place = span_context(event.request_id, traceparent=event.traceparent, sample_share=self._sample_share)
        if not place.is_sampled:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append(span_of(event, place))
        if self._timer is None:
            self._timer = self._loop.get().call_later(_SEND_EVERY_S, self._begin)

    async def aclose(self) -> None:
        """Sends what waits, for a moment."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            async with asyncio.timeout(_CLOSING_S):
                if self._sending is not None:
                    await self._sending
                await self._send()
        except TimeoutError:
            self.dropped += len(self._waiting)
            self._waiting.clear()

    def _begin(self) -> None:
        self._timer = None
        if self._sending is None or self._sending.done():
            self._sending = self._loop.get().create_task(self._send())
        else:
            self._timer = self._loop.get().call_later(_SEND_EVERY_S, self._begin)

    async def _send(self) -> None:
        while self._waiting:
            spans, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            body = write_json(export_of(spans, service=self._service, version=self._version))
            headers = {"Content-Type": "application/json", "Accept": "application/json"}
            request = WireRequest(
                method="POST", url=self._endpoint, headers=headers, body=body, timeouts=_TIMEOUTS
            )
            try:
                answer = await self._transport.fetch(request)
                reason = None if answer.status < 300 else f"the collector answered {answer.status}"
            except AIClientError as error:
                reason = str(error)
            if reason is not None:
                self.dropped += len(spans)
                self._events.emit(StoreDegraded(at=self._wall(), store="traces", reason=reason))
