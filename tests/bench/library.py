"""A library call beside bare aiohttp, the OpenAI SDK and litellm: `python -m tests.bench.library`.

Every contender runs alone in a process of its own, against the same target in another one, with prompts that are
all different. CPU is that of the contender's process. "all on": limits, cache (missed and written), ledger with
budgets, retries, breaker, adaptive concurrency and a listener to all events. Added latency is over the target's.
`--litellm-python "$(tools/venv bench)/bin/python"` brings litellm in.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

KEY = "hs_test_0123456789abcdef"
MODEL = "gpt-4.1"
# (contender, most requests a run): the slow ones get fewer, so that a run ends in seconds.
CONTENDERS = {
    "bare aiohttp": 20_000,
    "ai_client, plain": 20_000,
    "ai_client, five upstreams, plain": 20_000,
    "ai_client, all on": 20_000,
    "bare aiohttp, stream": 3_000,
    "ai_client, stream": 3_000,
    "OpenAI SDK": 1_500,
    "litellm": 600,
}
Call = Callable[[int], Awaitable[object]]


def messages(number: int) -> list[dict[str, str]]:
    text = (
        f"Question {number}: what is the answer to the question that nobody asked, and why is it forty-two?"
    )
    return [{"role": "system", "content": "You are brief and precise."}, {"role": "user", "content": text}]


def body(number: int) -> dict[str, Any]:
    return {"model": MODEL, "messages": messages(number), "max_tokens": 100, "temperature": 0.2}


async def bare(stack: AsyncExitStack, url: str, *, stream: bool) -> Call:
    import aiohttp  # noqa: PLC0415 - each contender imports its own

    connector = aiohttp.TCPConnector(limit=0)
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
    headers = {"Authorization": f"Bearer {KEY}"}

    async def call(number: int) -> object:
        sent = {**body(number), "stream": True} if stream else body(number)
        async with session.post(f"{url}/chat/completions", json=sent, headers=headers) as response:
            if not stream:
                return await response.json()
            async for _ in response.content.iter_any():
                pass
            return None

    return call


def _five_upstreams(url: str) -> list[Any]:
    """Accounts that all serve the model, so that each request draws one of them."""
    from ai_client.contract.keys import KeyProvider  # noqa: PLC0415
    from ai_client.contract.upstreams import Upstream  # noqa: PLC0415

    return [
        Upstream(base_url=url, keys=KeyProvider(KEY), name=f"u{number}", models={MODEL: MODEL})
        for number in range(5)
    ]


async def ours(
    stack: AsyncExitStack,
    url: str,
    *,
    concurrency: int,
    is_full: bool,
    stream: bool,
    upstreams: Sequence[Any] = (),
) -> Call:
    from ai_client import AIAPIClient, Request  # noqa: PLC0415
    from ai_client.cache.response_cache import ResponseCache  # noqa: PLC0415
    from ai_client.contract.options import ClientOptions  # noqa: PLC0415
    from ai_client.ledger.budgets import ALL_TENANTS, Budget, BudgetPlan, Span  # noqa: PLC0415
    from ai_client.ledger.ledger import SpendLedger  # noqa: PLC0415
    from ai_client.ledger.prices import Prices  # noqa: PLC0415
    from ai_client.settings import LIST_PRICES  # noqa: PLC0415
    from ai_client.transport.base import TransportOptions  # noqa: PLC0415

    more: dict[str, Any] = {"upstreams": upstreams}
    if is_full:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cache = ResponseCache(folder, scope=url, max_bytes=10**9)
        stack.callback(cache.close)
        plan = BudgetPlan(
            budgets=(Budget(ALL_TENANTS, Span.DAY, 10**18), Budget(ALL_TENANTS, Span.MONTH, 10**18))
        )
        ledger = SpendLedger(folder / "ledger.sqlite", prices=Prices.from_settings(LIST_PRICES), plan=plan)
        stack.callback(ledger.close)
        more |= {"cache": cache, "ledger": ledger, "tokens_per_minute": 10**9}
    pool = TransportOptions(pool_size=concurrency + 10, keepalive_connections=concurrency + 10)
    client = AIAPIClient(KEY, url, concurrency, 10**7, options=ClientOptions(transport=pool), **more)
    await stack.enter_async_context(client)
    if is_full:
        client.events.subscribe(lambda event: None)

    async def call(number: int) -> object:
        if not stream:
            return await client.chat_completion(messages(number), MODEL, max_tokens=100, temperature=0.2)
        request = Request(endpoint="chat/completions", body=body(number), stream=True)
        async with await client.stream(request) as response:
            async for _ in response:
                pass
        return None

    return call


async def openai_sdk(stack: AsyncExitStack, url: str) -> Call:
    import openai  # noqa: PLC0415

    # On a busy machine 500 connections at once take it longer than its own five seconds.
    client = await stack.enter_async_context(
        openai.AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0, timeout=600)
    )

    async def call(number: int) -> object:
        return await client.chat.completions.create(**body(number))

    return call


async def litellm_call(stack: AsyncExitStack, url: str) -> Call:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm  # noqa: PLC0415

    litellm.suppress_debug_info = True

    async def call(number: int) -> object:
        return await litellm.acompletion(
            api_base=url, api_key=KEY, **{**body(number), "model": f"openai/{MODEL}"}
        )

    return call


async def make(stack: AsyncExitStack, name: str, url: str, concurrency: int) -> Call:
    stream = name.endswith("stream")
    if name.startswith("bare"):
        return await bare(stack, url, stream=stream)
    if name.startswith("ai_client"):
        several = _five_upstreams(url) if "five" in name else ()
        full = not name.endswith("plain")
        return await ours(stack, url, concurrency=concurrency, is_full=full, stream=stream, upstreams=several)
    return await (openai_sdk(stack, url) if name == "OpenAI SDK" else litellm_call(stack, url))


async def measure(name: str, url: str, concurrency: int, requests: int) -> dict[str, float]:
    """Runs `requests` calls, `concurrency` at once, after a warm-up of a tenth."""
    async with AsyncExitStack() as stack:
        call = await make(stack, name, url, concurrency)
        numbers = iter(range(10**9))
        await _run(call, numbers, concurrency, max(concurrency, requests // 10))
        cpu_s, started_s = time.process_time(), time.perf_counter()
        latencies = await _run(call, numbers, concurrency, requests)
        wall_s = time.perf_counter() - started_s
        cpu_s = time.process_time() - cpu_s
    latencies.sort()
    return {
        "per_s": requests / wall_s,
        "cpu_us": cpu_s / requests * 1e6,
        "p50_ms": latencies[len(latencies) // 2] * 1e3,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1e3,
    }


async def _run(call: Call, numbers: Any, concurrency: int, requests: int) -> list[float]:
    latencies: list[float] = []
    left = iter(range(requests))

    async def work() -> None:
        for _ in left:
            started_s = time.perf_counter()
            await call(next(numbers))
            latencies.append(time.perf_counter() - started_s)

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return latencies


@contextmanager
def target(latency_ms: float) -> Iterator[str]:
    """The target in a process of its own; its URL."""
    command = [sys.executable, "-m", "tests.bench.target", str(latency_ms / 1e3)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.stdin.close()


def run_once(name: str, url: str, *, concurrency: int, requests: int, python: str) -> dict[str, float]:
    command = [python, "-m", "tests.bench.library", "--one", name, url, str(concurrency), str(requests)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    row: dict[str, float] = json.loads(output.splitlines()[-1])
    return row


def best(rows: list[dict[str, float]]) -> dict[str, float]:
    """The round that was disturbed least by others on the machine: the one with the least CPU a request."""
    return min(rows, key=lambda row: row["cpu_us"])


def compare(
    concurrency: int, latency_ms: float, *, share: float, rounds: int, pythons: dict[str, str | None]
) -> None:
    """One table. The contenders take turns, so that what else runs here disturbs all of them alike."""
    rows: dict[str, list[dict[str, float]]] = {}
    with target(latency_ms) as url:
        for _ in range(rounds):
            for name, most in CONTENDERS.items():
                python = pythons.get(name, sys.executable)
                if python is None:
                    continue
                # One at a time is slow by nature.
                count = max(2 * concurrency, int(most * share * (0.1 if concurrency == 1 else 1.0)))
                row = run_once(name, url, concurrency=concurrency, requests=count, python=python)
                rows.setdefault(name, []).append(row)
    print(f"\nconcurrency {concurrency}, target latency {latency_ms:g} ms, best of {rounds}")
    print(
        f"{'':34}{'requests/s':>12}{'CPU µs':>10}{'added p50 ms':>14}{'added p99 ms':>14}{'× bare CPU':>12}"
    )
    for name in CONTENDERS:
        if name not in rows:
            print(f"{name:34}  not installed (tools/venv bench)")
            continue
        row = best(rows[name])
        base = best(rows["bare aiohttp, stream" if name.endswith("stream") else "bare aiohttp"])
        print(
            f"{name:34}{row['per_s']:12.0f}{row['cpu_us']:10.1f}{row['p50_ms'] - latency_ms:14.3f}"
            f"{row['p99_ms'] - latency_ms:14.3f}{row['cpu_us'] / base['cpu_us']:12.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=4, metavar=("NAME", "URL", "CONCURRENCY", "REQUESTS"))
    parser.add_argument("--concurrency", type=int, nargs="*", default=[1, 50, 500])
    parser.add_argument("--latency-ms", type=float, nargs="*", default=[0.0, 42.0])
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--litellm-python", help="an interpreter that has litellm")
    arguments = parser.parse_args()
    if arguments.one:
        import uvloop  # noqa: PLC0415

        name, url, concurrency, requests = arguments.one
        print(json.dumps(uvloop.run(measure(name, url, int(concurrency), int(requests)))))
        return
    for latency_ms in arguments.latency_ms:
        for concurrency in arguments.concurrency:
            compare(
                concurrency,
                latency_ms,
                share=arguments.share,
                rounds=arguments.rounds,
                pythons={"litellm": arguments.litellm_python},
            )


if __name__ == "__main__":
    main()
