"""The provider: it answers as real ones do on their good and bad days, and writes down what it bills."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import httptools

from tests.client.gateway.simulation.loop import WALL_S, SimLoop
from tests.client.gateway.simulation.network import SimTransport

#: Dollars per million tokens, as the configuration has them.
PRICES = {"gpt-4.1": 8.0, "deepseek-v3.2": 0.42}
#: What a day is like: how often each thing happens.
DAYS: dict[str, dict[str, int]] = {
    "calm": {"fine": 30, "slow": 3},
    "usual": {"fine": 30, "slow": 6, "no usage": 2, "500": 1, "429": 1, "hang": 1, "close after": 2},
    "limits": {"fine": 4, "429": 6, "429 date": 1, "429 long": 1, "slow": 2, "none left": 2},
    "outage": {"fine": 1, "500": 6, "503": 4, "hang": 3, "reset": 4, "reset late": 3, "close": 2},
    "odd": {
        "fine": 6, "garbage": 2, "html": 2, "error within": 2, "half": 2, "wrong json": 2, "empty": 1,
        "401": 1, "404": 1, "400": 1, "299": 1, "huge head": 1, "two answers": 1, "interim": 2, "no usage": 2,
    },
    "dribble": {"fine": 4, "slow": 6, "stall": 2, "hang": 1, "cut": 2, "error in stream": 2, "no end": 2},
}  # fmt: skip
STREAM_ONLY = frozenset({"stall", "cut", "error in stream", "no end"})


@dataclass(frozen=True, slots=True)
class Bill:
    """What one request costs."""

    at_s: float
    tenant: str
    model: str
    nusd: int


class Provider:
    """One address behind which everything is answered."""

    def __init__(self, loop: SimLoop, source: random.Random, *, say: Callable[[str], None]) -> None:
        self.loop = loop
        self.random = source
        self.say = say
        self.day = "calm"
        self.bills: list[Bill] = []
        #: When each request had arrived whole.
        self.arrivals: list[float] = []
        self.connections: set[Exchange] = set()

    def __call__(self) -> Exchange:
        return Exchange(self)

    def choose(self, *, is_stream: bool) -> str:
        chances = DAYS[self.day]
        names = [name for name in chances if is_stream or name not in STREAM_ONLY]
        return self.random.choices(names, [chances[name] for name in names])[0]

    def bill(self, tenant: str, model: str, *, read: int, written: int) -> None:
        price = PRICES.get(model, 0.0)
        nusd = round((read + written) * price * 1000)
        self.bills.append(Bill(self.loop.time(), tenant, model, nusd))


class Exchange(asyncio.Protocol):
    """One connection: requests one after another."""

    transport: SimTransport

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.is_open = False
        self._parser = httptools.HttpRequestParser(self)
        self._url = self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SimTransport)
        self.transport = transport
        self.is_open = True
        self.provider.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self.provider.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        provider = self.provider
        provider.arrivals.append(provider.loop.time())
        body = json.loads(self._body) if self._body else {}
        Answer(self, self._url.decode(), body).begin()


class Answer:
    """To one request."""

    def __init__(self, exchange: Exchange, url: str, body: dict[str, Any]) -> None:
        self.exchange = exchange
        self.provider = exchange.provider
        self.random = exchange.provider.random
        self.url = url
        self.body = body
        self.is_stream = bool(body.get("stream"))
        self.model = str(body.get("model", ""))
        self.text = _text(body)
        most = body.get("max_tokens") or body.get("max_completion_tokens") or 12
        self.read = 5 + len(self.text) // 8
        self.written = 0 if url.endswith("/embeddings") else self.random.randint(1, min(int(most), 12))

    def begin(self) -> None:
        kind = self.provider.choose(is_stream=self.is_stream)
        if self.url.endswith("/models"):
            kind = "fine" if kind in STREAM_ONLY else kind
        self.kind = kind
        wait_s = self.random.uniform(0.01, 0.3)
        if kind == "slow":
            wait_s = self.random.choice([1.0, 3.0, 4.9, 5.1])
        self.later(wait_s, self.play)

    def later(self, wait_s: float, act: Callable[[], None]) -> None:
        self.provider.loop.call_later(wait_s, self._if_open, act)

    def _if_open(self, act: Callable[[], None]) -> None:
        if self.exchange.is_open:
            act()

    def play(self) -> None:
        kind, transport = self.kind, self.exchange.transport
        if kind in ("fine", "slow", "no usage", "close after", "none left", "interim", "two answers", "299"):
            if kind == "interim":
                transport.write(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
            self.whole(status=299 if kind == "299" else 200)
        elif kind in ("stall", "cut", "error in stream", "no end"):
            self.stream()
        elif kind in ("hang", "reset late"):
            self.charge()
            if kind == "reset late":
                self.later(self.random.uniform(0, 2), transport.abort)
        elif kind == "reset":
            transport.abort()
        elif kind == "close":
            transport.close()
        elif kind == "garbage":
            self.charge()
            transport.write(bytes(self.random.randrange(256) for _ in range(40)) + b"\r\n\r\n")
        elif kind == "half":
            self.charge()
            transport.write(b'HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"choices": [')
            self.later(0.1, transport.close)
        elif kind == "huge head":
            self.charge()
            transport.write(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n")
        else:
            self.refuse()

    def refuse(self) -> None:
        kind = self.kind
        if kind in ("html", "error within", "wrong json", "empty"):
            texts = {
                "html": b"<html>maintenance</html>",
                "error within": b'{"error": {"message": "overloaded", "type": "server_error"}}',
                "wrong json": b'{"choices": [',
                "empty": b"",
            }
            if kind != "error within":
                self.charge()
            self.respond(200, texts[kind])
            return
        headers = {
            "429": f"retry-after: {self.random.choice([0, 1, 3])}\r\nretry-after-ms: 700\r\n",
            "429 date": f"retry-after: {formatdate(WALL_S + self.provider.loop.time() - 1000 + 2, usegmt=True)}\r\n",
            "429 long": "retry-after: 86400\r\n",
        }
        status = int(kind.split()[0])
        body = json.dumps({"error": {"message": "no", "type": "x", "code": None}}).encode()
        self.respond(status, body, headers.get(kind, ""))

    def charge(self) -> None:
        """It has worked, whether or not anybody gets to see it."""
        if not self.url.endswith("/models"):
            tenant = self.text.partition(":")[0]
            self.provider.bill(tenant, self.model, read=self.read, written=self.written)

    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.read,
            "completion_tokens": self.written,
            "total_tokens": self.read + self.written,
        }

    def whole(self, *, status: int) -> None:
        self.charge()
        if self.url.endswith("/models"):
            self.respond(
                status, json.dumps({"object": "list", "data": [{"id": name} for name in PRICES]}).encode()
            )
            return
        if self.is_stream:
            self.stream()
            return
        answer: dict[str, Any] = {
            "id": "x",
            "object": "chat.completion",
            "model": self.model,
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": self.text}}
            ],
        }
        if self.url.endswith("/embeddings"):
            inputs = self.body["input"]
            answer = {
                "object": "list",
                "model": self.model,
                "data": [
                    {"object": "embedding", "index": index, "embedding": [float(len(each)), 1.0]}
                    for index, each in enumerate(inputs)
                ],
            }
        if self.kind != "no usage":
            answer["usage"] = self.usage()
        left = (
            "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 2s\r\n"
            if self.kind == "none left"
            else ""
        )
        # One that came later would be taken for the answer to the next request by any client.
        more = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}" if self.kind == "two answers" else b""
        self.respond(status, json.dumps(answer).encode(), left, more=more)
        if self.kind == "close after":
            self.later(self.random.uniform(0, 0.05), self.exchange.transport.close)

    def respond(self, status: int, body: bytes, headers: str = "", *, more: bytes = b"") -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        self.exchange.transport.write(head.encode() + body + more)

    # Streams.

    def stream(self) -> None:
        if self.kind in STREAM_ONLY:
            self.charge()
        self.exchange.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        size = self.random.choice([20, 20, 20, 4000])
        pieces = [self.text, *["." * size for _ in range(self.written)]]
        events = [self.event({"content": piece}) for piece in pieces]
        events.append(self.event({}, finish="stop"))
        if self.kind != "no usage" and (self.body.get("stream_options") or {}).get("include_usage"):
            events.append(_event({"choices": [], "usage": self.usage()}))
        if self.kind != "no end":
            events.append(b"data: [DONE]\n\n")
        self.step(events, self.random.choice([0.0, 0.01, 0.2]))

    def event(self, delta: dict[str, str], *, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _event({"object": "chat.completion.chunk", "model": self.model, "choices": [choice]})

    def step(self, events: list[bytes], pause_s: float) -> None:
        transport = self.exchange.transport
        if not events:
            transport.write(b"0\r\n\r\n")
            return
        event = events.pop(0)
        is_middle = len(events) == 3
        if is_middle and self.kind == "stall":
            return
        if is_middle and self.kind == "cut":
            transport.abort()
            return
        if is_middle and self.kind == "error in stream":
            event, events = b'data: {"error": {"message": "failed", "type": "server_error"}}\n\n', []
        transport.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        self.later(pause_s, lambda: self.step(events, pause_s))


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _text(body: dict[str, Any]) -> str:
    if "input" in body:
        given = body["input"]
        return str(given if isinstance(given, str) else given[0])
    messages = body.get("messages") or [{}]
    if messages[0].get("role") == "system":  # conversations that go together, each with its own messages
        messages = json.loads(messages[-1]["content"])[0]
    return str(messages[0].get("content", ""))
