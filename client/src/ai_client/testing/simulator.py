"""The provider simulator: an OpenAI-compatible server for the dev stack, tests and the bench."""

from __future__ import annotations

import asyncio
import gzip
import random
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from ai_client.testing import faults, replies
from ai_client.testing.control import control
from ai_client.testing.counts import KEPT_ARRIVALS, Arrival, Counts, peak_per_minute
from ai_client.testing.faults import Fault, FaultPlan, FaultTextError
from ai_client.testing.likeness import LIKENESSES, stream_like, under_v1, whole_like
from ai_client.testing.limits import Window
from ai_client.testing.other_apis import OtherApis, form_body
from ai_client.testing.played import Answer, plays_of, wire
from ai_client.testing.reading import (
    POSTS,
    WRONG_KEY,
    Refusal,
    fingerprint,
    key_of,
    read_body,
    read_plain_body,
)
from ai_client.testing.wire import ReceivedRequest, Responder, WireProtocol, WireState

_JSON = ("content-type", "application/json")
_SSE = ("content-type", "text/event-stream; charset=utf-8")


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """How the provider behaves.

    `latency_ms` is the median time to the first byte and `latency_p99_ms` its tail (log-normal; equal where None);
    `token_ms` passes between two events of a stream. Limits are per key and None for none. An empty `keys` accepts
    every key that begins with `key_prefix`.
    """

    host: str = "127.0.0.1"
    port: int = 0
    limit_rpm: int | None = None
    limit_tpm: int | None = None
    latency_ms: float = 0.0
    latency_p99_ms: float | None = None
    token_ms: float = 0.0
    key_prefix: str = "hs_"
    keys: frozenset[str] = frozenset()
    models: tuple[str, ...] = replies.MODELS
    seed: int = 0
    #: The provider that it is like: `LIKENESSES` has them.
    like: str = ""


@dataclass(slots=True)
class _Account:
    requests: Window
    tokens: Window


def like_options(options: SimulatorOptions) -> SimulatorOptions:
    """With the models and keys of the provider that it is like, where it is like one."""
    if not options.like:
        return options
    models = LIKENESSES[options.like].models if options.models is replies.MODELS else options.models
    return replace(
        options, models=models, key_prefix="" if options.key_prefix == "hs_" else options.key_prefix
    )


class Simulator:
    """An async context manager; `base_url` is where clients go."""

    def __init__(
        self,
        options: SimulatorOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.options = like_options(options or SimulatorOptions())
        self._like = LIKENESSES[self.options.like]
        self.faults = FaultPlan()
        self.counts = Counts()
        self.arrivals: deque[Arrival] = deque(maxlen=KEPT_ARRIVALS)
        self.accepted_keys = set(self.options.keys)
        self.refused_fingerprints: set[str] = set()
        self._clock = clock
        self._tls = tls
        self._random = random.Random(self.options.seed)  # noqa: S311  latencies, no secret
        self._accounts: dict[str, _Account] = {}
        self._others = OtherApis()
        #: Of the last request, with its key; its body as it came.
        self.last_headers, self.last_body = dict[str, str](), b""
        self._state = WireState(self._handle)
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        if self._server is None:
            raise RuntimeError("the simulator is not running; enter it with `async with`")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def base_url(self) -> str:
        """`http://HOST:PORT/v1`, or https, or another path where the provider has another."""
        return f"{'https' if self._tls else 'http'}://{self.options.host}:{self.port}{self._like.prefix}"

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._state.connections)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: WireProtocol(self._state),
            self.options.host,
            self.options.port,
            ssl=self._tls,
            backlog=1024,
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._server is not None:
            self._server.close()
            for connection in list(self._state.connections):
                connection.abort()
            await self._server.wait_closed()

    async def _handle(self, request: ReceivedRequest, out: Responder) -> None:
        counts = self.counts
        if request.path.startswith("/control/"):
            control(self, request, out)
            return
        request.target = under_v1(request.target, self._like.prefix)
        counts.arrivals += 1
        counts.by_path[request.path] += 1
        counts.in_flight += 1
        counts.peak_in_flight = max(counts.peak_in_flight, counts.in_flight)
        try:
            await self._answer(request, out)
            counts.answered += 1
        except asyncio.CancelledError:
            counts.disconnected += 1
            raise
        finally:
            counts.in_flight -= 1
            counts.by_status[out.status] += 1

    async def _answer(self, request: ReceivedRequest, out: Responder) -> None:
        now_s = self._clock()
        self.last_headers, self.last_body = request.headers, request.body
        key = key_of(request, self._like)
        body, refusal = self._read(request, key)
        self.counts.by_key[fingerprint(key)] += 1
        account = self._account(key)
        model = str(body.get("model", ""))
        tokens = self._cost(request.path, body)
        fault = None
        if refusal is None:
            try:
                fault = faults.asked_for(request.headers, body)
                if fault is not None:
                    self.check(fault)
            except FaultTextError as exc:
                refusal = (400, replies.error(str(exc), kind="invalid_request_error", code=None))
            fault = fault or self.faults.take(path=request.path, model=model)
        wait_s = max(account.requests.wait_s(1, now_s), account.tokens.wait_s(tokens, now_s))
        status = refusal[0] if refusal else 429 if wait_s > 0 else fault.status if fault else 200
        priority = request.headers.get("x-priority")
        self.arrivals.append(Arrival(now_s, request.path, model, status, priority, tokens))
        headers = self._rate_headers(account, now_s)
        if refusal is not None:
            out.send(refusal[0], [_JSON, *headers], self._error_text(*refusal))
        elif wait_s > 0:
            self._refuse_rate(out, headers, wait_s)
        else:
            account.requests.take(1, now_s)
            account.tokens.take(tokens, now_s)
            await self._wait_ms(self._latency_ms())
            await self._reply(request, body, [*self._rate_headers(account, now_s)], fault, out)

    def _read(self, request: ReceivedRequest, key: str) -> tuple[dict[str, Any], Refusal | None]:
        """Its body, and why it is refused, where it is."""
        if not self._accepts(key):
            return {}, WRONG_KEY
        if self._others.knows(request.method, request.path):
            return read_body(request, self.options.models)
        return read_plain_body(request, self.options.models, has_list=self._like.has_models_route)

    def _accepts(self, key: str) -> bool:
        if not key.startswith(self.options.key_prefix) or fingerprint(key) in self.refused_fingerprints:
            return False
        return not self.accepted_keys or key in self.accepted_keys

    def _account(self, key: str) -> _Account:
        if key not in self._accounts:
            limits = Window(self.options.limit_rpm), Window(self.options.limit_tpm)
            self._accounts[key] = _Account(*limits)
        return self._accounts[key]

    def _cost(self, path: str, body: dict[str, Any]) -> int:
        if not body or self.options.limit_tpm is None or path not in POSTS:
            return 0
        prompt = replies.count_tokens(replies.prompt_text(body))
        return prompt if path == "/v1/embeddings" else prompt + len(replies.reply_words(body))

    def _rate_headers(self, account: _Account, now_s: float) -> list[tuple[str, str]]:
        if not self._like.limit_headers:
            return []
        return account.requests.headers("requests", now_s) + account.tokens.headers("tokens", now_s)

    def _error_text(self, status: int, answer: dict[str, Any]) -> bytes:
        """An error as the provider writes it; those of Anthropic's paths have its form already."""
        is_plain = "error" in answer and answer.get("type") != "error"
        return replies.encode(self._like.error(status, answer["error"]) if is_plain else answer)

    def _refuse_rate(self, out: Responder, headers: list[tuple[str, str]], wait_s: float) -> None:
        body = replies.error("Rate limit reached.", kind="requests", code="rate_limit_exceeded")
        retry = [("retry-after", str(int(wait_s) + 1)), ("retry-after-ms", str(int(wait_s * 1000) + 1))]
        out.send(429, [_JSON, *headers, *retry], self._error_text(429, body))

    def _latency_ms(self) -> float:
        median, tail = self.options.latency_ms, self.options.latency_p99_ms
        if tail is None or tail <= median or median <= 0:
            return median
        # A log-normal whose 99th percentile lies at `tail`: 2.326 standard deviations above the median.
        return float(median * (tail / median) ** (self._random.gauss(0, 1) / 2.326))

    @staticmethod
    async def _wait_ms(milliseconds: float) -> None:
        if milliseconds > 0:
            await asyncio.sleep(milliseconds / 1000)

    async def _reply(
        self,
        request: ReceivedRequest,
        body: dict[str, Any],
        headers: list[tuple[str, str]],
        fault: Fault | None,
        out: Responder,
    ) -> None:
        if fault is not None and fault.kind == "play":
            self._play(plays_of(self.options.like)[fault.name], out)
            return
        serial, path = self.counts.arrivals, request.path
        headers.append(("x-request-id", f"req_{serial:08d}"))
        if fault is not None and fault.kind not in ("slow", "cut", "stall"):
            await self._early_fault(fault, headers, out)
            return
        if path not in POSTS and self._others.knows(request.method, path):
            await self._other_reply(request, body, headers, fault, out)
            return
        if body.get("stream") and path != "/v1/embeddings":
            is_chat = path == "/v1/chat/completions"
            if self._like.usage_in != "asked":
                body = body | {"stream_options": {"include_usage": True}}
            events = stream_like(self._like, replies.stream(body, serial, is_chat=is_chat), body)
            await self._stream(events, [_SSE, *headers], fault, out)
            return
        content = replies.encode(whole_like(self._like, self._whole(path, body, serial), body))
        if self._like.compresses and "gzip" in request.headers.get("accept-encoding", ""):
            content = gzip.compress(content, mtime=0)
            headers.append(("content-encoding", "gzip"))
        if fault is None:
            out.send(200, [_JSON, *headers], content)
        else:
            middle = len(content) // 2
            pieces = [content[:middle], content[middle:]]
            if fault.kind == "slow":
                pieces = [content[index : index + 1] for index in range(len(content))]
            await self._pieces(pieces, [_JSON, *headers], fault, out)

    async def _other_reply(
        self,
        request: ReceivedRequest,
        body: dict[str, Any],
        headers: list[tuple[str, str]],
        fault: Fault | None,
        out: Responder,
    ) -> None:
        form = form_body(request.body, request.headers.get("content-type", ""))
        reply = self._others.answer(
            request.method,
            request.path,
            body,
            content=form[1] if form else request.body,
            key=key_of(request, self._like),
            serial=self.counts.arrivals,
        )
        headers = [("content-type", reply.content_type), *headers]
        if reply.events is not None:
            await self._stream(reply.events, headers, fault, out)
        else:
            out.send(reply.status, headers, reply.body)

    def check(self, fault: Fault) -> None:
        """Raises FaultTextError where the provider that this is like is not known to play it."""
        plays = plays_of(self.options.like)
        if fault.kind == "play" and fault.name not in plays:
            known = ", ".join(sorted(plays)) or "none: start it with --like NAME"
            raise FaultTextError(f"play {fault.name!r} is not known; there are {known}")

    @staticmethod
    def _play(answer: Answer, out: Responder) -> None:
        out.status = int(answer.get("status", 200))
        out.raw(wire(answer))
        if "ends" in answer:
            out.close()

    def _whole(self, path: str, body: dict[str, Any], serial: int) -> replies.Json:
        if path == "/v1/chat/completions":
            return replies.chat(body, serial)
        if path == "/v1/completions":
            return replies.completion(body, serial)
        return replies.embeddings(body) if path == "/v1/embeddings" else replies.models(self.options.models)

    async def _stream(
        self, events: list[bytes], headers: list[tuple[str, str]], fault: Fault | None, out: Responder
    ) -> None:
        if fault is not None:
            await self._pieces(events, headers, fault, out)
            return
        out.start(200, headers)
        for index, event in enumerate(events):
            if index:
                await self._wait_ms(self.options.token_ms)
            out.chunk(event)
        out.end()

    async def _pieces(
        self, pieces: list[bytes], headers: list[tuple[str, str]], fault: Fault, out: Responder
    ) -> None:
        out.start(200, headers)
        for index, piece in enumerate(pieces):
            if fault.kind != "slow" and index == len(pieces) // 2:
                if fault.kind == "cut":
                    out.close()
                else:
                    await asyncio.get_running_loop().create_future()
                return
            await self._wait_ms(fault.delay_s * 1000 if fault.kind == "slow" else 0)
            out.chunk(piece)
        out.end()

    async def _early_fault(self, fault: Fault, headers: list[tuple[str, str]], out: Responder) -> None:
        if fault.kind == "status":
            if fault.retry_after is not None:
                headers.append(("retry-after", fault.retry_after))
            if fault.retry_after_ms is not None:
                headers.append(("retry-after-ms", str(fault.retry_after_ms)))
            body = replies.error(f"Simulated status {fault.status}.", kind="server_error", code="simulated")
            out.send(fault.status, [_JSON, *headers], self._error_text(fault.status, body))
        elif fault.kind == "broken-json":
            out.send(200, [_JSON, *headers], b'{"id": "chatcmpl-0", "choices": [{"index": 0, "mess')
        elif fault.kind == "not-http":
            out.raw(b"\x00\x01\x02 this is no HTTP\r\n\r\n")
            out.close()
        elif fault.kind == "reset":
            out.reset()
        else:
            # Hangs until the caller gives up: its disconnect cancels this handler.
            await asyncio.get_running_loop().create_future()

    def stats(self) -> dict[str, Any]:
        """The counters, as `GET /control/stats` gives them."""
        counts = self.counts
        return {
            "arrivals": counts.arrivals,
            "answered": counts.answered,
            "disconnected": counts.disconnected,
            "in_flight": counts.in_flight,
            "peak_in_flight": counts.peak_in_flight,
            "connections": self.connections,
            "connections_accepted": self._state.accepted,
            "peak_rpm": self.peak_per_minute(),
            "by_status": {str(status): number for status, number in sorted(counts.by_status.items())},
            "by_path": dict(counts.by_path),
            "by_key": dict(counts.by_key),
        }

    def peak_per_minute(self) -> int:
        """The most arrivals within any 60 seconds, of those still remembered."""
        return peak_per_minute(self.arrivals)
