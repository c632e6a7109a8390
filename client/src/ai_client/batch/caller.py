"""Sends the lines of a batch through the gateway's socket, least urgent of all, and rides out its restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from ai_client.batch.lines import RequestLine

LEAST_URGENT = 9
# How long the gateway may be away, as during an upgrade or a restart of the host's service.
ABSENCE_S = 120.0
ABSENCE_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0

#: The code of an account without credit.
OUT_OF_CREDIT = "insufficient_quota"
# What passes by itself: not a fault of the line.
_PASSING = frozenset(
    {"overloaded", "draining", "circuit_open", "rate_limit_exceeded", "client_closed", "pool_timeout"}
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gateway answered. `code` is empty for success."""

    status: int
    code: str
    message: str
    request_id: str
    cost_usd: float
    body: bytes
    #: How long the gateway says that this lasts, in seconds.
    retry_after_s: float = 0.0

    #: Whether it was answered, and nobody knows at what cost.
    is_cost_unknown: bool = False

    def counted(self, worst_usd: float) -> Answer:
        """The same at the most that it may have cost, where that is not known."""
        return replace(self, cost_usd=worst_usd) if self.is_cost_unknown else self

    @property
    def is_out_of_quota(self) -> bool:
        """Whether the provider answers nobody for long: no credit, or a quota of the day that is spent."""
        return self.code == OUT_OF_CREDIT or (
            self.code == "rate_limit_exceeded" and self.retry_after_s > LONGEST_WAIT_S
        )


class GatewayAbsentError(Exception):
    """The gateway does not answer; the text names its socket and the remedy."""


class LineSender:
    """An async context manager; `send` may be called many times at once."""

    def __init__(
        self,
        socket: Path,
        *,
        batch_name: str,
        max_attempts: int,
        at_once: int,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._socket = socket
        self._batch_name = batch_name
        self._max_attempts = max_attempts
        self._at_once = at_once
        self._wait = wait
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> LineSender:
        connector = aiohttp.UnixConnector(str(self._socket), limit=self._at_once)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, line: RequestLine, *, batch_name: str = "") -> Answer:
        """The answer to a line, retried while what stands in its way passes by itself. Raises GatewayAbsentError.

        `batch_name`: of which batch it is, where this sends lines of several.
        """
        data = json.dumps(line.body, separators=(",", ":")).encode()
        attempt, absent_s = 1, 0.0
        while True:
            try:
                answer, retry_s = await self._ask(line, data, batch_name or self._batch_name)
            except (aiohttp.ClientError, OSError) as exc:
                if absent_s >= ABSENCE_S:
                    remedy = "see `systemctl status ai-client`, then run the same command again"
                    raise GatewayAbsentError(
                        f"the gateway does not answer on {self._socket}; {remedy}"
                    ) from exc
                absent_s += ABSENCE_WAIT_S
                await self._wait(ABSENCE_WAIT_S)
                continue
            absent_s = 0.0
            if answer.code not in _PASSING or answer.is_out_of_quota or attempt >= self._max_attempts:
                return answer
            if answer.code != "draining":
                attempt += 1
            await self._wait(min(retry_s, LONGEST_WAIT_S))

    async def _ask(self, line: RequestLine, data: bytes, batch_name: str) -> tuple[Answer, float]:
        if self._session is None:
            raise RuntimeError("enter the LineSender with `async with` first")
        headers = {
            "content-type": "application/json",
            "x-priority": str(LEAST_URGENT),
            # The same for every attempt and run, so that an upstream that knows such keys answers it once.
            "idempotency-key": f"{batch_name}-{line.number}",
        }
        async with self._session.post(f"http://localhost{line.url}", data=data, headers=headers) as response:
            body = await response.read()
        code, message = "", ""
        if response.status != 200:
            code, message = _error_of(body, response.status)
        retry_s = float(response.headers.get("retry-after-ms", "1000")) / 1000
        cost_usd = float(response.headers.get("x-ai-cost-usd", "0"))
        request_id = response.headers.get("x-request-id", "")
        is_unknown = response.status == 200 and response.headers.get("x-ai-cache") == "miss"
        is_unknown = is_unknown and "x-ai-cost-usd" not in response.headers
        answer = Answer(
            response.status, code, message, request_id, cost_usd, body, retry_s, is_cost_unknown=is_unknown
        )
        return answer, retry_s


def _error_of(body: bytes, status: int) -> tuple[str, str]:
    try:
        error: Any = json.loads(body)["error"]
        return str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return f"status_{status}", f"the gateway answered {status}"
