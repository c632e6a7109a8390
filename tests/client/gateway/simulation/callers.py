"""Those who call: patient and impatient, fast and slow, by name and by token; each notes how each request ended."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httptools

from tests.client.gateway.simulation.loop import SimLoop
from tests.client.gateway.simulation.network import SimTransport
from tests.client.gateway.simulation.process import Process

UNIX, TCP = "/run/gateway.sock", ("127.0.0.1", 8800)
TOKEN = "a-token-for-tests"
#: Tenants, the uid of each on the Unix socket; None: by token over TCP.
TENANTS: dict[str, int | None] = {"alice": 1001, "bob": 1002, "poor": 1003, "web": None}
PATIENCE_S = 1500.0


@dataclass(slots=True)
class Ending:
    """What became of one request. `what`: answered, cut (by the other side), left (by the caller), hung."""

    text: str
    asked_s: float
    deadline_s: float | None
    is_patient: bool
    what: str = ""
    at_s: float = 0.0
    status: int = 0
    body: bytes = b""
    is_stream: bool = False
    may_be_cut: bool = False
    #: Who had the connection in the end.
    process: Process | None = None

    def __str__(self) -> str:
        took_s = self.at_s - self.asked_s
        return f"{self.text}: {self.what} {self.status} after {took_s:.3f} s, {len(self.body)} bytes"


@dataclass(slots=True)
class Habits:
    """How one caller behaves."""

    leaves_after_s: float | None = None
    #: Seconds of not reading, once the answer has begun; infinite: for ever.
    sleeps_s: float = 0.0
    dribbles: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class Line(asyncio.Protocol):
    """The caller's end of a connection."""

    transport: SimTransport

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.body = b""
        self.is_whole = self.is_lost = self.can_stay = False
        self.extra_bytes = 0
        self.changed: asyncio.Future[None] = loop.create_future()

    def expect(self) -> None:
        self.status, self.body, self.is_whole, self.can_stay = 0, b"", False, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SimTransport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._wake()

    def data_received(self, data: bytes) -> None:
        if self.is_whole:
            self.extra_bytes += len(data)
        self._parser.feed_data(data)
        self._wake()

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self.is_whole = True
            self.can_stay = self._parser.should_keep_alive()

    def _wake(self) -> None:
        if not self.changed.done():
            self.changed.set_result(None)

    async def news(self, until_s: float) -> None:
        """Something came, or the time has come."""
        if self.changed.done():
            self.changed = self._loop.create_future()
        timer = self._loop.call_at(until_s, self._wake)
        try:
            await self.changed
        finally:
            timer.cancel()


class Caller:
    """One connection, and some requests over it."""

    def __init__(
        self, loop: SimLoop, source: random.Random, *, name: str, tenant: str, say: Callable[[str], None]
    ) -> None:
        self.loop = loop
        self.random = source
        self.name = name
        self.tenant = tenant
        self.endings: list[Ending] = []
        self.faults: list[str] = []
        self._say = say
        self._line: Line | None = None

    async def run(self) -> None:
        for number in range(self.random.choice([1, 1, 1, 2, 4])):
            await self.ask(number)
            await asyncio.sleep(self.random.choice([0.0, 0.01, 1.0]))
        if self._line is not None and not self._line.is_lost:
            self._line.transport.close()

    def _connected(self) -> Line:
        line = self._line
        if line is None or not line.can_stay or line.is_lost or line.transport.is_closing():
            line = Line(self.loop)
            uid = TENANTS.get(self.tenant)
            address = TCP if uid is None else UNIX
            self.loop.played(address, lambda: line, uid=uid or 0)
            self._line = line
        return self._line

    async def ask(self, number: int) -> None:
        path, body = self._request(number)
        habits = self._habits()
        deadline = habits.headers.get("x-ai-deadline")
        ending = Ending(
            f"{self.name}.{number} {path} of {self.tenant}",
            self.loop.time(),
            None if deadline is None else float(deadline),
            is_patient=habits.sleeps_s == 0 and habits.leaves_after_s is None,
            is_stream=bool(body.get("stream")),
            may_be_cut=habits.sleeps_s > 0,
        )
        self.endings.append(ending)
        try:
            line = self._connected()
        except ConnectionRefusedError:
            self._end(ending, "refused")
            return
        line.expect()
        began_s = self.loop.time()
        await self._write(line, path, body, habits)
        ending.asked_s = self.loop.time()
        await self._read(line, ending, habits)
        # What the kernel resets with a process gets no answer, nor what is still to come as it ends.
        far = line.transport.peer
        ending.may_be_cut |= far.was_killed or far.ended_after(began_s - 0.1)
        ending.process = far.process
        self._check(ending, str(_told(body)))

    def _request(self, number: int) -> tuple[str, dict[str, Any]]:
        # Some ask what others ask in the same moment.
        text = self.random.choice([f"{self.tenant}:{self.name}.{number}", f"{self.tenant}:the usual"])
        model = self.random.choice(["gpt-4.1", "gpt-4.1", "deepseek-v3.2", "no-such-model"])
        if self.random.random() < 0.1:
            return "/v1/embeddings", {"model": "gpt-4.1", "input": [text]}
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
        if self.random.random() < 0.4:
            body["stream"] = True
        if self.random.random() < 0.7:
            body["max_tokens"] = self.random.choice([1, 10, 200, 4000])
        if self.random.random() < 0.05:
            body["padding"] = "x" * self.random.choice([1000, 60_000])
        if self.random.random() < 0.03:
            body["messages"] = self.random.choice([None, [], "text", [1]])
        return "/v1/chat/completions", body

    def _habits(self) -> Habits:
        habits, chance = Habits(), self.random.random
        if chance() < 0.15:
            habits.leaves_after_s = self.random.choice([0.0, 0.001, 0.05, 0.5, 3.0, 20.0])
        if chance() < 0.08:
            habits.sleeps_s = self.random.choice([1.0, 8.0, 90.0])
        habits.dribbles = chance() < 0.05
        headers = habits.headers
        if chance() < 0.3:
            headers["x-ai-deadline"] = self.random.choice(["0.05", "0.5", "2", "10", "30"])
        if chance() < 0.5:
            headers["x-priority"] = str(self.random.randint(0, 9))
        if chance() < 0.2:
            headers["idempotency-key"] = self.random.choice(["one", "two", self.name])
        if chance() < 0.1:
            headers["x-ai-cache"] = self.random.choice(["no-store", "only-if-cached"])
        if chance() < 0.1:
            headers["x-ai-merge"] = "true"
        if TENANTS.get(self.tenant) is None:
            headers["authorization"] = f"Bearer {TOKEN}"
        return habits

    async def _write(self, line: Line, path: str, body: dict[str, Any], habits: Habits) -> None:
        content = json.dumps(body).encode()
        lines = "".join(f"{name}: {value}\r\n" for name, value in habits.headers.items())
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n{lines}\r\n"
        data = head.encode() + content
        if habits.dribbles:
            for at in range(0, len(data), max(1, len(data) // 5)):
                line.transport.write(data[at : at + max(1, len(data) // 5)])
                await asyncio.sleep(0.2)
        else:
            line.transport.write(data)

    async def _read(self, line: Line, ending: Ending, habits: Habits) -> None:
        began_s = self.loop.time()
        leaves_at_s = began_s + PATIENCE_S
        if habits.leaves_after_s is not None:
            leaves_at_s = began_s + habits.leaves_after_s
        while not line.is_whole and not line.is_lost:
            if self.loop.time() >= leaves_at_s:
                line.transport.abort()
                self._end(ending, "hung" if habits.leaves_after_s is None else "left", line)
                return
            await line.news(leaves_at_s)
            if habits.sleeps_s and line.body:
                line.transport.pause_reading()
                await asyncio.sleep(habits.sleeps_s)
                habits.sleeps_s = 0.0
                line.transport.resume_reading()
        self._end(ending, "answered" if line.is_whole else "cut", line)

    def _end(self, ending: Ending, what: str, line: Line | None = None) -> None:
        ending.what, ending.at_s = what, self.loop.time()
        if line is not None:
            ending.status, ending.body = line.status, line.body
            if line.extra_bytes:
                self.faults.append(f"{ending}: {line.extra_bytes} bytes behind the answer")
        self._say(str(ending))

    def _check(self, ending: Ending, told: str) -> None:
        """Whose answer is it?"""
        if ending.what != "answered" or ending.status != 200 or not ending.body:
            return
        body = ending.body.decode()
        if '"error"' in body or "embedding" in body or told in body:
            return
        if not ending.is_stream and "choices" in body:
            self.faults.append(f"{ending}: not the answer to {told!r}: {body[:200]}")


def _told(body: dict[str, Any]) -> object:
    messages = body.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[0], dict):
        return messages[0].get("content", "")
    return ""
