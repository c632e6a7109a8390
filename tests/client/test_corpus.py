"""What real providers answered, and what should come of it: small files in `corpus/`, each a report, through one
runner.

A file has `about`, `source` and `cases`. A case has a `name`, what is asked (`request`, merged into a chat request;
`endpoint`; `fallback`; `budget_usd`, a hard one; `price`, a line of `[model_costs]`, for `models`, too; `told_cost`;
`bills_cut_streams`), what the upstream `answers`, one entry an attempt (the last one again and again), and what is to
`expect`. Everything runs twice, on the real library with cache and ledger before a real HTTP server, so that what is
cached shows. In a request or an answer `{"repeat": TEXT, "times": N}` is a long text, and `{"each": VALUE, "times": N}`
many items of a list.

An answer is as `ai_client.testing.played` has them. One that belongs to a provider of `docs/how-to/providers.md` lies
there (`{"play": "PROVIDER/NAME"}`), and its case has `of`, the providers whose likenesses play it: each does so in a
third run, on the simulator. A case with a provider's name in its own that is `unplayed` says why.

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
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable
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
from ai_client.contract.upstreams import Dialect
from ai_client.errors import AIClientError, MaxRetriesExceeded
from ai_client.ledger.budgets import ALL_TENANTS, Budget, BudgetPlan, Span
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.prices import Prices, dollars_to_nusd
from ai_client.ledger.usage import UsageRow, read_usage
from ai_client.settings.prices import price_of
from ai_client.testing import Simulator, SimulatorOptions, faults
from ai_client.testing.likeness import LIKENESSES
from ai_client.testing.played import play, plays_of, wire

FOLDER = Path(__file__).parent / "corpus"
KEY = "hs_test_0123456789abcdef"
#: Dollars per million tokens, so that every kind of token shows in the sum.
PRICE = "input=1, output=10, cached_input=0.1, cache_write=2, search=0.01, flex=0.5, priority=2"
GOOD = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "good"}, "finish_reason": "stop"}]
}
GOOD_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def _read() -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(FOLDER.glob("*.json")):
        report = json.loads(path.read_text())
        assert report["about"], f"{path.name} says nothing about itself"
        assert report["source"], f"{path.name} names no source"
        found |= {f"{path.stem}: {case['name']}": case for case in report["cases"]}
    return found


CASES = _read()
#: How the names of providers are written in those of cases.
SPELT = {
    "openai": "OpenAI|Codex",
    "azure": "Azure",
    "anthropic": "Anthropic",
    "deepseek": "DeepSeek",
    "gemini": "Gemini|Google",
    "mistral": "Mistral",
    "xai": "xAI",
    "groq": "Groq",
    "moonshot": "Moonshot",
    "openrouter": "OpenRouter",
    "bedrock": "Bedrock",
    "vertex": "Vertex",
    "vllm": "vLLM",
    "llamacpp": "llama.cpp",
    "ollama": "Ollama",
    "holysheep": "HolySheep",
}


def _scripted(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers that are not the good one."""
    return [answer for answer in case["answers"] if answer != "good"]


def _played_by(case: dict[str, Any], provider: str) -> list[str]:
    """The names by which a provider plays the case's answers."""
    return [answer["play"].partition("/")[2] for answer in _scripted(case)]


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
                writer.write(wire(answer))
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
        return dict(play(answer["play"]) if "play" in answer else _grown(answer))


def _good(*, is_stream: bool) -> dict[str, Any]:
    if not is_stream:
        return {"json": GOOD | {"usage": GOOD_USAGE}}
    chunk = {"choices": [{"index": 0, "delta": {"content": "good"}, "finish_reason": "stop"}]}
    return {"events": [chunk, {"choices": [], "usage": GOOD_USAGE}, "data: [DONE]"]}


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
    """A request or an answer with its long texts and lists."""
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


@dataclass
class Run:
    """Of one case: its two calls, and what the ledger has after the first."""

    first: Outcome
    second: Outcome
    total: UsageRow
    #: Requests that the upstream had got after the first.
    attempts: int


async def _run(
    case: dict[str, Any], here: contract.Upstream, folder: Path, attempts: Callable[[], int]
) -> Run:
    price = price_of(case.get("price", PRICE))
    priced = ("asked", "fallback", "gpt-4.1", *case.get("models", ()))
    prices = Prices.from_settings(dict.fromkeys(priced, price))
    options = ClientOptions(
        retry=RetryOptions(max_retries=case.get("retries", 1), backoff_base_s=0.001),
        fallback_chain=(case["fallback"],) if "fallback" in case else (),
    )
    with (
        closing(SpendLedger(folder / "ledger.sqlite", prices=prices, plan=_plan(case))) as ledger,
        closing(ResponseCache(folder / "cache", scope=here.base_url, max_bytes=10**7)) as cache,
    ):
        async with AIAPIClient(
            here.keys, here.base_url, options=options, cache=cache, ledger=ledger, upstreams=(here,)
        ) as client:
            first = await _ask(client, case)
            after_first = attempts()
            ledger.flush()
            total = read_usage(
                folder / "ledger.sqlite", first_day="2000-01-01", last_day="2999-12-31", by=()
            ).total
            return Run(first, await _ask(client, case), total, after_first)


def _upstream(
    case: dict[str, Any], base_url: str, dialect: Dialect = Dialect.COMPATIBLE
) -> contract.Upstream:
    return contract.Upstream(
        base_url=base_url,
        keys=KeyProvider(KEY),
        dialect=dialect,
        tells_cost=case.get("told_cost", False),
        bills_cut_streams=case.get("bills_cut_streams", False),
    )


def _check_money(expect: dict[str, Any], total: UsageRow) -> None:
    if "cost_usd" in expect:
        assert float(total.cost_usd) == pytest.approx(expect["cost_usd"], abs=1e-9)
    if "most_usd" in expect:
        assert float(total.cost_usd) <= expect["most_usd"]
    if "least_usd" in expect:
        assert float(total.cost_usd) >= expect["least_usd"]
    assert total.unknown_requests == expect.get("unknown", total.unknown_requests)


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
async def test_what_comes_of_an_answer(case: dict[str, Any], tmp_path: Path) -> None:
    """Told, retried, passed to the fallback, booked and cached as it should be."""
    expect = case["expect"]
    async with serving(case) as upstream:
        here = _upstream(case, f"http://127.0.0.1:{upstream.port}/v1")
        run = await _run(case, here, tmp_path, lambda: len(upstream.models))
    _check(expect, run.first, run.attempts)
    assert {name: upstream.sent.get(name) for name in expect.get("sent", {})} == expect.get("sent", {})
    assert len(upstream.models) == expect.get("attempts_of_both", len(upstream.models))
    assert run.second.cached == expect.get("cached", "error" not in expect and "fallback" not in case)
    _check_money(expect, run.total)


@pytest.mark.parametrize(
    ("case", "provider"),
    [
        pytest.param(case, provider, id=f"{provider}, {name}")
        for name, case in CASES.items()
        for provider in case.get("of", ())
    ],
)
async def test_a_likeness_plays_what_its_provider_answered(
    case: dict[str, Any], provider: str, tmp_path: Path
) -> None:
    """The same comes of it in front of `ai-client simulate --like NAME`, by the provider's path, key and dialect."""
    models = ("asked", "fallback", "gpt-4.1", *case.get("models", ()))
    # Its own good answer says what it was asked, in its own number of tokens.
    asked = {"messages": [{"role": "user", "content": "good"}], "max_tokens": 16}
    case = case | {"request": asked | case.get("request", {})} if "good" in case["answers"] else case
    plays = _played_by(case, provider)
    async with Simulator(SimulatorOptions(like=provider, models=models)) as simulator:
        for place, name in enumerate(plays):
            is_last = place == len(plays) - 1 and case["answers"][-1] != "good"
            model = "asked" if "fallback" in case else None
            fault = faults.parse(f"play; name={name}")
            simulator.faults.add(fault, count=1000 if is_last else 1, model=model)
        dialect = Dialect(provider) if provider in set(Dialect) else Dialect.COMPATIBLE
        here = _upstream(case, simulator.base_url, dialect)
        run = await _run(case, here, tmp_path, lambda: simulator.counts.arrivals)
    _check(case["expect"], run.first, run.attempts)
    if "good" not in case["answers"] and "fallback" not in case:
        _check_money(case["expect"], run.total)


def test_every_kind_of_a_provider_is_played_by_its_likeness() -> None:
    """Or says why it is not; and nothing is played that no case is about."""
    used: dict[str, set[str]] = {provider: set() for provider in SPELT}
    for name, case in CASES.items():
        title = name.partition(": ")[2]
        named = {each for each, spelt in SPELT.items() if re.search(spelt, title)}
        if _scripted(case) and "unplayed" not in case:
            assert not named or named & set(case.get("of", ())), (
                f"{name}: nobody plays it, and it says not why"
            )
        for provider in case.get("of", ()):
            used[provider].update(_played_by(case, provider))
    assert used == {provider: set(plays_of(provider)) for provider in LIKENESSES if provider}
