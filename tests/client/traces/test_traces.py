"""Spans by OTLP: what they say, whose trace they belong to, and that a collector's trouble is nobody's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ai_client.testing import Simulator
from ai_client.traces import names
from ai_client.traces.context import span_context
from tests.client.service_rig import running_service, until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
BODY = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "a secret"}], "max_tokens": 2}


class Collector:
    """What came to a collector."""

    def __init__(self) -> None:
        self.port = 0
        self.spans: list[dict[str, Any]] = []
        self.services: list[Any] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request by request."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
                self.take(json.loads(await reader.readexactly(length)))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionResetError):
            writer.close()

    def take(self, request: dict[str, Any]) -> None:
        """An export."""
        [resource] = request["resourceSpans"]
        self.services.append(resource["resource"]["attributes"][0]["value"]["stringValue"])
        self.spans += resource["scopeSpans"][0]["spans"]


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector on loopback."""
    collector = Collector()
    server = await asyncio.start_server(collector.serve, "127.0.0.1", 0)
    collector.port = server.sockets[0].getsockname()[1]
    try:
        yield collector
    finally:
        server.close()


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    """By name."""
    return {each["key"]: next(iter(each["value"].values())) for each in span["attributes"]}


async def test_a_request_is_a_span_of_its_callers_trace(tmp_path: Path) -> None:
    """With GenAI's names and no text; the upstream's parent is our span."""
    async with collecting() as collector, Simulator() as simulator:
        traces = f"[traces]\notlp_endpoint = http://127.0.0.1:{collector.port}/v1/traces\nservice_name = mine"
        async with (
            running_service(tmp_path, simulator, extra=f"rate_limit = 60000\n{traces}") as rig,
            rig.tcp_client() as client,
        ):
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            assert (await client.post("/v1/chat/completions", json=BODY, headers=headers)).status_code == 200
            passed = simulator.last_headers["traceparent"]
            missing = BODY | {"model": "gpt-9"}
            assert (await client.post("/v1/chat/completions", json=missing)).status_code == 404
            await until(lambda: len(collector.spans) >= 2, what="the spans")
    span = next(each for each in collector.spans if each["name"] == "chat gpt-4.1")
    assert (span["traceId"], span["parentSpanId"]) == (TRACE, PARENT)
    assert passed == f"00-{TRACE}-{span['spanId']}-01"
    said = attributes(span)
    assert (said[names.OPERATION], said[names.REQUEST_MODEL]) == ("chat", "gpt-4.1")
    assert (said[names.INPUT_TOKENS], said[names.OUTPUT_TOKENS]) == ("2", "2")
    assert int(span["startTimeUnixNano"]) < int(span["endTimeUnixNano"])
    assert "secret" not in json.dumps(collector.spans)
    assert set(collector.services) == {"mine"}
    failed = next(each for each in collector.spans if each["name"] == "chat gpt-9")
    assert attributes(failed)[names.ERROR_TYPE] == "ModelNotFoundError"
    assert failed["status"]["code"] == 2


async def test_without_an_endpoint_the_callers_header_passes_as_it_is(tmp_path: Path) -> None:
    """Nothing is sent anywhere."""
    async with (
        Simulator() as simulator,
        running_service(tmp_path, simulator) as rig,
        rig.tcp_client() as client,
    ):
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=b"}
        await client.post("/v1/chat/completions", json=BODY, headers=headers)
        assert simulator.last_headers["traceparent"] == headers["traceparent"]
        assert simulator.last_headers["tracestate"] == "a=b"


async def test_a_dead_collector_harms_no_request(tmp_path: Path) -> None:
    """It is counted as a store that failed, and requests go on."""
    async with Simulator() as simulator:
        extra = "rate_limit = 60000\n[traces]\notlp_endpoint = http://127.0.0.1:9/v1/traces"
        async with running_service(tmp_path, simulator, extra=extra) as rig, rig.tcp_client() as client:
            for number in range(3):
                answer = await client.post("/v1/chat/completions", json=BODY | {"seed": number})
                assert answer.status_code == 200
            log = rig.folder / "log"
            await until(
                lambda: any('"traces"' in path.read_text() for path in log.iterdir()),
                what="the trouble to be told",
            )


@pytest.mark.parametrize(
    ("header", "parent", "is_sampled"),
    [
        (f"00-{TRACE}-{PARENT}-01", PARENT, True),
        (f"00-{TRACE}-{PARENT}-00", PARENT, False),
        (f"cc-{TRACE}-{PARENT}-03-more", PARENT, True),
        (f"ff-{TRACE}-{PARENT}-01", "", True),
        (f"00-{'0' * 32}-{PARENT}-01", "", True),
        (f"00-{TRACE}-{'0' * 16}-01", "", True),
        ("", "", True),
        ("nonsense", "", True),
    ],
)
def test_places_in_traces(header: str, parent: str, is_sampled: bool) -> None:
    """A caller's trace goes on where its header is one of W3C's; anything else begins a new trace."""
    place = span_context("request-1", traceparent=header, sample_share=1.0)
    assert (place.parent_id, place.is_sampled) == (parent, is_sampled)
    assert (place.trace_id == TRACE) == bool(parent)


def test_new_traces_are_sampled_by_their_share() -> None:
    """Evenly, and the same request always in the same way."""
    places = [span_context(f"request-{n}", traceparent="", sample_share=0.25) for n in range(4000)]
    assert 800 < sum(place.is_sampled for place in places) < 1200
    assert places == [span_context(f"request-{n}", traceparent="", sample_share=0.25) for n in range(4000)]
