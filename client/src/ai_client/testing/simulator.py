"""The provider simulator: an OpenAI-compatible server for the dev stack, tests and the bench."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from ai_client.testing import faults, replies
from ai_client.testing.faults import Fault, FaultPlan, FaultTextError
from ai_client.testing.limits import Window
from ai_client.testing.wire import Responder, WireProtocol, WireRequest, WireState

KEPT_ARRIVALS = 100_000
_JSON = ("content-type", "application/json")
_SSE = ("content-type", "text/event-stream; charset=utf-8")
_POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")


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


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as the provider saw it; `at_s` is on the simulator's clock."""

    at_s: float
    path: str
    model: str
    status: int
    priority: str | None
    tokens: int


@dataclass(slots=True)
class _Account:
    requests: Window
    tokens: Window


@dataclass(slots=True)
class Counts:
    """What tests trust: kept by the provider's side alone."""

    arrivals: int = 0
    answered: int = 0
    disconnected: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    by_path: Counter[str] = field(default_factory=Counter)
    by_key: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    peak_in_flight: int = 0


class Simulator:
    """An async context manager; `base_url` is where clients go."""

    def __init__(
        self,
        options: SimulatorOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.options = options or SimulatorOptions()
        self.faults = FaultPlan()
        self.counts = Counts()
        self.arrivals: deque[Arrival] = deque(maxlen=KEPT_ARRIVALS)
        self.accepted_keys = set(self.options.keys)
        self.refused_fingerprints: set[str] = set()
        self._clock = clock
        self._tls = tls
        self._random = random.Random(self.options.seed)  # noqa: S311  latencies, no secret
        self._accounts: dict[str, _Account] = {}
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
        """`http://HOST:PORT/v1`, or https."""
        return f"{'https' if self._tls else 'http'}://{self.options.host}:{self.port}/v1"

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

    async def _handle(self, request: WireRequest, out: Responder) -> None:
        counts = self.counts
        if request.path.startswith("/control/"):
            self._control(request, out)
            return
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

    async def _answer(self, request: WireRequest, out: Responder) -> None:
        now_s = self._clock()
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        body, refusal = self._read(request, key)
        self.counts.by_key[_fingerprint(key)] += 1
        account = self._account(key)
        model = str(body.get("model", ""))
        tokens = self._cost(request.path, body)
        fault = None
        if refusal is None:
            try:
                fault = faults.asked_for(request.headers, body)
            except FaultTextError as exc:
                refusal = (400, replies.error(str(exc), kind="invalid_request_error", code=None))
            fault = fault or self.faults.take(path=request.path, model=model)
        wait_s = max(account.requests.wait_s(1, now_s), account.tokens.wait_s(tokens, now_s))
        status = refusal[0] if refusal else 429 if wait_s > 0 else fault.status if fault else 200
        priority = request.headers.get("x-priority")
        self.arrivals.append(Arrival(now_s, request.path, model, status, priority, tokens))
        headers = self._rate_headers(account, now_s)
        if refusal is not None:
            out.send(refusal[0], [_JSON, *headers], replies.encode(refusal[1]))
        elif wait_s > 0:
            self._refuse_rate(out, headers, wait_s)
        else:
            account.requests.take(1, now_s)
            account.tokens.take(tokens, now_s)
            await self._wait_ms(self._latency_ms())
            await self._reply(request.path, body, [*self._rate_headers(account, now_s)], fault, out)

    def _read(self, request: WireRequest, key: str) -> tuple[dict[str, Any], tuple[int, Any] | None]:
        """The body, and the refusal where the request can't be answered."""
        if not self._accepts(key):
            message = "Incorrect API key provided."
            return {}, (401, replies.error(message, kind="invalid_request_error", code="invalid_api_key"))
        if request.method == "GET" and request.path.startswith("/v1/models"):
            return {}, None
        if request.method != "POST" or request.path not in _POSTS:
            message = f"Unknown request URL: {request.method} {request.path}."
            return {}, (404, replies.error(message, kind="invalid_request_error", code="unknown_url"))
        try:
            body = json.loads(request.body)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            message = "We could not parse the JSON body of your request."
            return {}, (400, replies.error(message, kind="invalid_request_error", code=None))
        model = body.get("model")
        if model not in self.options.models:
            message = f"The model `{model}` does not exist."
            return body, (404, replies.error(message, kind="invalid_request_error", code="model_not_found"))
        return body, None

    def _accepts(self, key: str) -> bool:
        if not key.startswith(self.options.key_prefix) or _fingerprint(key) in self.refused_fingerprints:
            return False
        return not self.accepted_keys or key in self.accepted_keys

    def _account(self, key: str) -> _Account:
        if key not in self._accounts:
            limits = Window(self.options.limit_rpm), Window(self.options.limit_tpm)
            self._accounts[key] = _Account(*limits)
        return self._accounts[key]

    def _cost(self, path: str, body: dict[str, Any]) -> int:
        if not body or self.options.limit_tpm is None:
            return 0
        prompt = replies.count_tokens(replies.prompt_text(body))
        return prompt if path == "/v1/embeddings" else prompt + len(replies.reply_words(body))

    @staticmethod
    def _rate_headers(account: _Account, now_s: float) -> list[tuple[str, str]]:
        return account.requests.headers("requests", now_s) + account.tokens.headers("tokens", now_s)

    @staticmethod
    def _refuse_rate(out: Responder, headers: list[tuple[str, str]], wait_s: float) -> None:
        body = replies.error("Rate limit reached.", kind="requests", code="rate_limit_exceeded")
        retry = [("retry-after", str(int(wait_s) + 1)), ("retry-after-ms", str(int(wait_s * 1000) + 1))]
        out.send(429, [_JSON, *headers, *retry], replies.encode(body))

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
        path: str,
        body: dict[str, Any],
        headers: list[tuple[str, str]],
        fault: Fault | None,
        out: Responder,
    ) -> None:
        serial = self.counts.arrivals
        headers.append(("x-request-id", f"req_{serial:08d}"))
        if fault is not None and fault.kind not in ("slow", "cut", "stall"):
            await self._early_fault(fault, headers, out)
            return
        if body.get("stream") and path != "/v1/embeddings":
            is_chat = path == "/v1/chat/completions"
            await self._stream(replies.stream(body, serial, is_chat=is_chat), headers, fault, out)
            return
        content = replies.encode(self._whole(path, body, serial))
        if fault is None:
            out.send(200, [_JSON, *headers], content)
        else:
            middle = len(content) // 2
            pieces = [content[:middle], content[middle:]]
            if fault.kind == "slow":
                pieces = [content[index : index + 1] for index in range(len(content))]
            await self._pieces(pieces, [_JSON, *headers], fault, out)

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
            await self._pieces(events, [_SSE, *headers], fault, out)
            return
        out.start(200, [_SSE, *headers])
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

    @staticmethod
    async def _early_fault(fault: Fault, headers: list[tuple[str, str]], out: Responder) -> None:
        if fault.kind == "status":
            if fault.retry_after is not None:
                headers.append(("retry-after", fault.retry_after))
            if fault.retry_after_ms is not None:
                headers.append(("retry-after-ms", str(fault.retry_after_ms)))
            body = replies.error(f"Simulated status {fault.status}.", kind="server_error", code="simulated")
            out.send(fault.status, [_JSON, *headers], replies.encode(body))
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

    def _control(self, request: WireRequest, out: Responder) -> None:
        """`GET /control/stats`; `POST /control/faults` {fault, count, path, model}; `DELETE /control/faults`;
        `POST /control/keys` {refused: [fingerprint]}, the keys that have been revoked.
        """
        if request.path == "/control/stats":
            out.send(200, [_JSON], replies.encode(self.stats()))
        elif request.path == "/control/faults" and request.method == "DELETE":
            self.faults.clear()
            out.send(204, [], b"")
        elif request.path == "/control/keys" and request.method == "POST":
            try:
                self.refused_fingerprints = {str(name) for name in json.loads(request.body)["refused"]}
            except (ValueError, KeyError, TypeError) as exc:
                out.send(400, [_JSON], replies.encode({"error": f"can't read the fingerprints: {exc}"}))
            else:
                out.send(204, [], b"")
        elif request.path == "/control/faults" and request.method == "POST":
            try:
                asked = json.loads(request.body)
                fault = faults.parse(asked["fault"])
                count = int(asked.get("count", 1))
                self.faults.add(fault, count=count, path=asked.get("path"), model=asked.get("model"))
            except (ValueError, KeyError, TypeError) as exc:
                out.send(400, [_JSON], replies.encode({"error": f"can't read the fault: {exc}"}))
            else:
                out.send(204, [], b"")
        else:
            out.send(404, [_JSON], replies.encode({"error": "no such control route"}))

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
        peak, window = 0, deque[float]()
        for arrival in self.arrivals:
            window.append(arrival.at_s)
            while window[0] <= arrival.at_s - 60:
                window.popleft()
            peak = max(peak, len(window))
        return peak


def _fingerprint(key: str) -> str:
    """What stands for a key in counters and control routes, as everywhere in the project."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]
