"""Who can be measured: the service of this host, over its socket, and any provider directly, by the library."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import aiohttp

from ai_client.bench.load import Outcome
from ai_client.client import AIAPIClient
from ai_client.contract.request import CacheMode, Request, Usage
from ai_client.dialects.stream_reader import StreamReader
from ai_client.errors import AIClientError
from ai_client.ledger.prices import NANO_PER_DOLLAR, Prices

LOOK_S = 0.2


class ServiceProvider:
    """The service of this host. An async context manager, as the other is."""

    def __init__(self, socket: Path, *, name: str, prices: Prices) -> None:
        self.name = name
        self._prices = prices
        self.pool_peak: int | None = None
        self.pool_size: int | None = None
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.UnixConnector(str(self._socket), limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._looking is not None:
            self._looking.cancel()
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("enter the provider with `async with` first")
        return self._session

    async def ask(self, body: dict[str, Any]) -> Outcome:
        """One request."""
        sent_s = time.perf_counter()
        first_byte_s = None
        pieces = []
        try:
            async with self._open().post("http://localhost/v1/chat/completions", json=body) as answer:
                async for piece in answer.content.iter_any():
                    if first_byte_s is None and body.get("stream"):
                        first_byte_s = time.perf_counter() - sent_s
                    pieces.append(piece)
        except (aiohttp.ClientError, OSError) as exc:
            return Outcome(type(exc).__name__, 0.0, is_cached=False)
        whole = b"".join(pieces)
        is_cached = answer.headers.get("x-ai-cache") == "hit"
        if answer.status != 200:
            return Outcome(_code(whole, answer.status), 0.0, is_cached)
        cost_usd = float(answer.headers.get("x-ai-cost-usd", "0"))
        code = ""
        if body.get("stream"):
            code, usage = _stream_end(whole)
            if not is_cached:
                cost_usd = _cost_usd(self._prices, answer.headers.get("x-ai-model", ""), usage)
        return Outcome(code, cost_usd, is_cached, first_byte_s)

    async def requests_per_minute(self) -> int | None:
        """The service's limit; None where it has none or does not say."""
        with suppress(aiohttp.ClientError, OSError, KeyError, ValueError, TypeError):
            async with self._open().get("http://localhost/status.json") as answer:
                return int((await answer.json())["limits"]["rpm"]) or None
        return None

    async def _look(self) -> None:
        """The pool's use, a few times a second."""
        while True:
            with suppress(aiohttp.ClientError, OSError, KeyError, ValueError):
                async with self._open().get("http://localhost/status.json") as answer:
                    pool = (await answer.json())["pool"]
                self.pool_size = pool["size"]
                self.pool_peak = max(self.pool_peak or 0, pool["in_use"])
            await asyncio.sleep(LOOK_S)


def _code(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return f"status_{status}"


class DirectProvider:
    """Any provider, by the library, without this host's limits, cache and ledger."""

    def __init__(self, base_url: str, key: str, *, name: str, prices: Prices, at_once: int) -> None:
        self.name = name
        self.pool_peak: int | None = None
        self.pool_size: int | None = None
        self._prices = prices
        self._client = AIAPIClient(key, base_url, max_concurrent=at_once, requests_per_minute=None)

    async def __aenter__(self) -> Self:
        return self

    async def requests_per_minute(self) -> int | None:
        """None: it is asked without a limit of this host's."""
        return None

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()

    async def ask(self, body: dict[str, Any]) -> Outcome:
        """One request."""
        is_streamed = bool(body.get("stream"))
        request = Request(
            endpoint="chat/completions", body=body, stream=is_streamed, cache_mode=CacheMode.NO_STORE
        )
        sent_s = time.perf_counter()
        first_byte_s = None
        try:
            if is_streamed:
                async with await self._client.stream(request) as stream:
                    async for _ in stream:
                        first_byte_s = first_byte_s or time.perf_counter() - sent_s
                usage = stream.usage
            else:
                usage = (await self._client.send(request)).usage
        except AIClientError as exc:
            return Outcome(exc.code, 0.0, is_cached=False)
        finally:
            pool = self._client.get_stats()["pool"]
            self.pool_size = pool["size"]
            self.pool_peak = max(self.pool_peak or 0, pool["in_use"])
        return Outcome("", _cost_usd(self._prices, request.model, usage), False, first_byte_s)


def _stream_end(stream: bytes) -> tuple[str, Usage | None]:
    """The code of what went wrong in a stream, "" where it was whole; and its usage."""
    reader = StreamReader()
    try:
        reader.feed(stream)
        reader.finish()
    except AIClientError as exc:
        return exc.code, None
    if reader.fault is not None:
        return reader.fault.code or "error", reader.usage
    return "" if reader.is_whole else "connection_lost", reader.usage


def _cost_usd(prices: Prices, model: str, usage: Usage | None) -> float:
    if usage is None:
        return 0.0
    return prices.of(model).cost_nusd(usage) / NANO_PER_DOLLAR
