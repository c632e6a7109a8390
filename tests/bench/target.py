"""The fastest upstream that Python makes: one fixed answer, written by a bare protocol on uvloop, after a latency."""

import asyncio
import json
import sys
from typing import cast

import uvloop

ANSWER = json.dumps(
    {
        "id": "chatcmpl-0123456789",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4.1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Forty-two is the answer to that question. " * 8},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 40, "completion_tokens": 80, "total_tokens": 120},
    }
).encode()
WHOLE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\n"
    b"x-ratelimit-limit-requests: 1000000\r\nx-ratelimit-remaining-requests: 999999\r\n"
    b"x-ratelimit-reset-requests: 1ms\r\ncontent-length: " + str(len(ANSWER)).encode() + b"\r\n\r\n" + ANSWER
)
CHUNKS = 20
_EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","model":"gpt-4.1",'
    b'"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
)
_LAST = (
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":40,"completion_tokens":20,"total_tokens":60}}\n\n'
    b"data: [DONE]\n\n"
)
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


class Target(asyncio.Protocol):
    """One connection. Requests on it come one after the other."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        length = (
            int(head[at + 15 : head.find(b"\r\n", at) if head.find(b"\r\n", at) > 0 else None])
            if at > 0
            else 0
        )
        if len(self._buffer) < end + 4 + length:
            return
        body, self._buffer = self._buffer[end + 4 : end + 4 + length], self._buffer[end + 4 + length :]
        answer = self._stream if b'"stream":true' in body or b'"stream": true' in body else self._whole
        if self._latency_s:
            asyncio.get_running_loop().call_later(self._latency_s, answer)
        else:
            answer()

    def _whole(self) -> None:
        self._transport.write(WHOLE)

    def _stream(self) -> None:
        self._transport.write(_STREAM_HEAD)
        self._events(0)

    def _events(self, number: int) -> None:
        if number < CHUNKS:
            self._transport.write(_chunk(_EVENT))
            asyncio.get_running_loop().call_soon(self._events, number + 1)
        else:
            self._transport.write(_chunk(_LAST) + b"0\r\n\r\n")


async def main(latency_s: float) -> None:
    """Says its port on standard output, and serves until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Target(latency_s), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1])))
