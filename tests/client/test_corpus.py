"""What real providers answered, and what should come of it: small files in `corpus/`, each a report, through one
runner.

A file has `about`, `source` and `cases`. A case has a `name`, what is asked (`request`, merged into a chat request;
`endpoint`; `fallback`; `budget_usd`, a hard one; `price`, a line of `[model_costs]`, for `models`, too; `told_cost`;
`bills_cut_streams`),
what the upstream `answers`, one entry an attempt (the last one again and again), and what is to `expect`. Everything
runs twice, on the real library with cache and ledger before a real HTTP server, so that what is cached shows. In a
request `{"repeat": TEXT, "times": N}` is a long text, and `{"each": VALUE, "times": N}` many items of a list.

| of an answer | |
|---|---|
| `status` [200], `headers`, `json`, `text`, `base64` | a whole answer |
| `events` | a stream: objects become `data:` lines, texts stay as they are; `newline` [LF] |
| `repeat` | the text `REPEAT` within becomes so many letters |
| `ends` | `close`: without length; `cut`: before its end |

| of what is expected | |
|---|---|
| `error` | name of the error's class; absent where it is answered. `code`, `text`: within it |
| `text` | within the answer |
| `cost_usd`, `unknown` | booked in all, and how many entries of that are unknown; `most_usd` and `least_usd` bound it |
| `sent` | members of the last body that the upstream got |
| `retry_after_s`, `quota_spent` | of the error |
| `attempts` | requests that the upstream got of the first call; `attempts_of_both`; `model`: who answered |
| `cached` | whether the second call is answered from the cache |
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ai_client import AIAPIClient
from ai_client.cache.response_cache import ResponseCache
from ai_client.contract import upstreams as contract
from ai_client.contract.keys import KeyProvider
from ai_client.contract.options import ClientOptions, RetryOptions
from ai_client.contract.request import Request, Usage
from ai_client.errors import AIClientError, MaxRetriesExceeded
from ai_client.ledger.budgets import ALL_TENANTS, Budget, BudgetPlan, Span
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.prices import Prices, dollars_to_nusd
from ai_client.ledger.usage import read_usage
from ai_client.settings.prices import price_of

FOLDER = Path(__file__).parent / "corpus"
KEY = "hs_test_0123456789abcdef"
#: Dollars per million tokens, so that every kind of token shows in the sum.
PRICE = "input=1, output=10, cached_input=0.1, cache_write=2, search=0.01, flex=0.5, priority=2"
GOOD = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "good"}, "finish_reason": "stop"}]
}
GOOD_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def _cases() -> list[Any]:
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        report = json.loads(path.read_text())
        assert report["about"], f"{path.name} says nothing about itself"
        assert report["source"], f"{path.name} names no source"
        found += [pytest.param(case, id=f"{path.stem}: {case['name']}") for case in report["cases"]]
    return found


@dataclass
class Upstream:
    """Answers as a case says."""

    case: dict[str, Any]
    models: list[str] = field(default_factory=list)
    sent: dict[str, Any] = field(default_factory=dict)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                answer = self._answer(body)
                writer.write(_wire(answer))
                await writer.drain()
                if "ends" in answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        answers = self.case["answers"]
        self.sent = body
        answer = answers[min(len(self.models), len(answers) - 1)]
        self.models.append(body["model"])
        if answer == "good" or body["model"] == self.case.get("fallback"):
            return _good(is_stream=bool(body.get("stream")))
        return dict(answer)


def _good(*, is_stream: bool) -> dict[str, Any]:
    if not is_stream:
        return {"json": GOOD | {"usage": GOOD_USAGE}}
    chunk = {"choices": [{"index": 0, "delta": {"content": "good"}, "finish_reason": "stop"}]}
    return {"events": [chunk, {"choices": [], "usage": GOOD_USAGE}, "data: [DONE]"]}


def _wire(answer: dict[str, Any]) -> bytes:
    content = _content(answer).replace(b"REPEAT", b"x" * answer.get("repeat", 0))
    kind = "text/event-stream" if "events" in answer else "application/json"
    headers = {"content-type": kind, **answer.get("headers", {})}
    lines = [f"HTTP/1.1 {answer.get('status', 200)} Said", *(f"{name}: {headers[name]}" for name in headers)]
    if answer.get("ends") in ("close", "cut"):
        lines.append("connection: close")
    if answer.get("ends") != "close":
        lines.append(f"content-length: {len(content) + 10 * (answer.get('ends') == 'cut')}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def _content(answer: dict[str, Any]) -> bytes:
    if "events" in answer:
        lines = [each if isinstance(each, str) else f"data: {json.dumps(each)}" for each in answer["events"]]
        text = "".join(line + "\n\n" for line in lines)
        return text.replace("\n", answer.get("newline", "\n")).encode()
    if "base64" in answer:
        return base64.b64decode(answer["base64"])
    return answer["text"].encode() if "text" in answer else json.dumps(answer["json"]).encode()


@asynccontextmanager
async def serving(case: dict[str, Any]) -> AsyncIterator[Upstream]:
    upstream = Upstream(case)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    async with server:
        yield upstream


@dataclass
class Outcome:
    """Of one call."""

    text: str = ""
    model: str = ""
    cached: bool = False
    usage: Usage | None = None
    error: AIClientError | None = None


def _plan(case: dict[str, Any]) -> BudgetPlan:
    if "budget_usd" not in case:
        return BudgetPlan()
    return BudgetPlan((Budget(ALL_TENANTS, Span.DAY, dollars_to_nusd(case["budget_usd"])),))


async def _ask(client: AIAPIClient, case: dict[str, Any]) -> Outcome:
    body = {"model": "asked", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8000}
    body |= _grown(case.get("request", {}))
    body = {name: value for name, value in body.items() if value != "ABSENT"}
    request = Request(
        endpoint=case.get("endpoint", "chat/completions"), body=body, stream=body.get("stream", False)
    )
    pieces = []
    try:
        if not request.stream:
            response = await client.send(request)
            return Outcome(response.body.decode(), response.model, response.cached, response.usage)
        async with await client.stream(request) as stream:
            async for piece in stream:
                pieces.append(piece)
        return Outcome(b"".join(pieces).decode(), stream.model, stream.cached, stream.usage)
    except AIClientError as error:
        last = error.last if isinstance(error, MaxRetriesExceeded) else error
        return Outcome(b"".join(pieces).decode(), error=last)


def _grown(value: Any) -> Any:
    """A request with its long texts and lists."""
    if isinstance(value, list):
        many = [
            [each["each"]] * each["times"] if isinstance(each, dict) and "each" in each else [each]
            for each in value
        ]
        return [_grown(each) for each in itertools.chain.from_iterable(many)]
    if not isinstance(value, dict):
        return value
    if "repeat" in value and "times" in value:
        return value["repeat"] * value["times"]
    return {name: _grown(each) for name, each in value.items()}


def _check(expect: dict[str, Any], outcome: Outcome, attempts: int) -> None:
    assert type(outcome.error).__name__ == expect.get("error", "NoneType"), outcome
    if outcome.error is not None:
        assert outcome.error.code == expect.get("code", outcome.error.code)
        assert expect.get("reason", "") in outcome.error.reason
        if "retry_after_s" in expect:
            assert getattr(outcome.error, "retry_after_s", None) == pytest.approx(
                expect["retry_after_s"], abs=2
            )
        assert getattr(outcome.error, "quota_spent", False) == expect.get("quota_spent", False)
    assert expect.get("text", "") in outcome.text
    assert outcome.model == expect.get("model", outcome.model)
    if "lacks" in expect:
        assert expect["lacks"] not in outcome.text
    if "attempts" in expect:
        assert attempts == expect["attempts"]


@pytest.mark.parametrize("case", _cases())
async def test_what_comes_of_an_answer(case: dict[str, Any], tmp_path: Path) -> None:
    """Told, retried, passed to the fallback, booked and cached as it should be."""
    expect = case["expect"]
    price = price_of(case.get("price", PRICE))
    priced = ("asked", "fallback", "gpt-4.1", *case.get("models", ()))
    prices = Prices.from_settings(dict.fromkeys(priced, price))
    options = ClientOptions(
        retry=RetryOptions(max_retries=case.get("retries", 1), backoff_base_s=0.001),
        fallback_chain=(case["fallback"],) if "fallback" in case else (),
    )
    async with serving(case) as upstream:
        base_url = f"http://127.0.0.1:{upstream.port}/v1"
        with (
            closing(SpendLedger(tmp_path / "ledger.sqlite", prices=prices, plan=_plan(case))) as ledger,
            closing(ResponseCache(tmp_path / "cache", scope=base_url, max_bytes=10**7)) as cache,
        ):
            here = contract.Upstream(
                base_url=base_url,
                keys=KeyProvider(KEY),
                tells_cost=case.get("told_cost", False),
                bills_cut_streams=case.get("bills_cut_streams", False),
            )
            async with AIAPIClient(
                here.keys, base_url, options=options, cache=cache, ledger=ledger, upstreams=(here,)
            ) as client:
                first = await _ask(client, case)
                attempts = len(upstream.models)
                ledger.flush()
                total = read_usage(
                    tmp_path / "ledger.sqlite", first_day="2000-01-01", last_day="2999-12-31", by=()
                ).total
                second = await _ask(client, case)
    _check(expect, first, attempts)
    assert {name: upstream.sent.get(name) for name in expect.get("sent", {})} == expect.get("sent", {})
    assert len(upstream.models) == expect.get("attempts_of_both", len(upstream.models))
    assert second.cached == expect.get("cached", "error" not in expect and "fallback" not in case)
    if "cost_usd" in expect:
        assert float(total.cost_usd) == pytest.approx(expect["cost_usd"], abs=1e-9)
    if "most_usd" in expect:
        assert float(total.cost_usd) <= expect["most_usd"]
    if "least_usd" in expect:
        assert float(total.cost_usd) >= expect["least_usd"]
    assert total.unknown_requests == expect.get("unknown", total.unknown_requests)
