"""Load on a gateway: requests on kept connections by a bare protocol, so that the caller costs next to nothing.

`python -m tests.bench.gateway_load ADDRESS CONCURRENCY SECONDS TOKEN [stream]` prints one line of JSON. ADDRESS is
a port or the path of a Unix socket. All prompts differ, so that no cache answers.
"""

import asyncio
import json
import os
import sys
import time
from typing import cast

import uvloop

PATH = "/v1/chat/completions"
# How long the last answers may take.
PATIENCE_S = 30.0


class Run:
    """What the connections of one run share."""

    def __init__(self, *, token: str, is_streamed: bool, seconds: float) -> None:
        self.token = token
        self.is_streamed = is_streamed
        self.seconds = seconds
        self.ends_s = time.perf_counter() + seconds
        self.count = 0
        self.failed = 0
        self.latencies_s: list[float] = []
        self.first_bytes_s: list[float] = []

    def request(self) -> bytes:
        self.count += 1
        body: dict[str, object] = {
            "model": "gpt-4.1",
            "messages": [{"role": "user", "content": f"Question {os.getpid()}-{self.count}: why forty-two?"}],
            "max_tokens": 100,
        }
        if self.is_streamed:
            body["stream"] = True
        data = json.dumps(body).encode()
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data


class Caller(asyncio.Protocol):
    """One connection: the next request goes out when the last answer is whole."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._buffer = b""
        self._sent_s = 0.0
        self._has_first = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self._run.failed += 1
            self.ended.set_result(None)

    def _send(self) -> None:
        self._has_first = False
        self._buffer = b""
        data = self._run.request()
        self._sent_s = time.perf_counter()
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        if not self._has_first and len(self._buffer) > end + 4:
            self._has_first = True
            self._run.first_bytes_s.append(time.perf_counter() - self._sent_s)
        if not self._is_whole(end):
            return
        self._run.latencies_s.append(time.perf_counter() - self._sent_s)
        self._run.failed += not self._buffer.startswith(b"HTTP/1.1 200")
        if time.perf_counter() < self._run.ends_s:
            self._send()
        else:
            self.ended.set_result(None)
            self._transport.close()

    def _is_whole(self, end: int) -> bool:
        head = self._buffer[:end].lower()
        # At the beginning of a line: some gateways return the upstream's under another name.
        at = head.find(b"\r\ncontent-length: ")
        if at < 0:
            return self._buffer.endswith(b"0\r\n\r\n")
        line_end = head.find(b"\r\n", at + 2)
        return len(self._buffer) >= end + 4 + int(head[at + 18 : line_end if line_end > 0 else None])


async def load(address: str, *, concurrency: int, run: Run) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    began_s = time.perf_counter()
    callers = []
    for _ in range(concurrency):
        if address.isdigit():
            _, caller = await loop.create_connection(lambda: Caller(run), "127.0.0.1", int(address))
        else:
            _, caller = await loop.create_unix_connection(lambda: Caller(run), address)
        callers.append(caller)
    _, unanswered = await asyncio.wait([caller.ended for caller in callers], timeout=run.seconds + PATIENCE_S)
    run.failed += len(unanswered)
    took_s = time.perf_counter() - began_s
    if not run.latencies_s:
        sys.exit(f"{address} answered nothing within {took_s:.0f} s")
    latencies, first = sorted(run.latencies_s), sorted(run.first_bytes_s)
    return {
        "per_s": len(latencies) / took_s,
        "count": len(latencies),
        "failed": run.failed,
        "p50_ms": latencies[len(latencies) // 2] * 1e3,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1e3,
        "first_byte_p50_ms": first[len(first) // 2] * 1e3,
    }


def main() -> None:
    address, concurrency, seconds, token = sys.argv[1:5]
    run = Run(token=token, is_streamed="stream" in sys.argv[5:], seconds=float(seconds))
    print(json.dumps(uvloop.run(load(address, concurrency=int(concurrency), run=run))))


if __name__ == "__main__":
    main()
