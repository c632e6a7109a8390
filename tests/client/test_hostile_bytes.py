"""Bytes that others wrote: whatever they are, a reader gives its own verdict on them and nothing else comes out.

A few examples each; `FUZZ_EXAMPLES=20000 python -m pytest tests/client/test_hostile_bytes.py` looks for long.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ai_client.admission.sent_log import SentLog
from ai_client.audit.chain import HEAD_NAME, parse_head, verify
from ai_client.audit.trail import AuditTrail
from ai_client.batch import lines
from ai_client.cache.response_cache import ResponseCache
from ai_client.contract.apis import Family
from ai_client.contract.request import Request, Usage
from ai_client.contract.stores import CachedResponse
from ai_client.dialects import limit_headers
from ai_client.dialects.body_reader import read_body
from ai_client.dialects.error_answers import error_from_answer
from ai_client.dialects.sse import SSEParser
from ai_client.dialects.stream_reader import StreamReader
from ai_client.dialects.typed_streams import TypedStreamReader
from ai_client.errors import AIClientError
from ai_client.gateway.app import headers
from ai_client.gateway.app.failures import Failure
from ai_client.gateway.app.headers import Steering
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.prices import Price, Prices
from ai_client.settings import ConfigError, KeyMissingError, read_keys
from ai_client.settings.load import loads

_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
few = settings(
    max_examples=_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
fewer = settings(few, max_examples=max(12, _EXAMPLES // 5))

_PIECES = [
    b"data: ", b"data:", b"event: error\n", b"id: 1\n", b"retry: 9\n", b": a comment\n", b"\n", b"\r", b"\r\n", b"\n\n",
    b"[DONE]", b"{}", b"[]", b"null", b"1e999", b'{"choices":[', b'{"index":0,"delta":{"content":"a"}}', b"]}",
    b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}', b'{"error":', b'{"error":{"message":1}}',
    b'{"usage":{"prompt_tokens":1,"completion_tokens":-1}}', b'{"usage":{"prompt_tokens":1e400}}', b'{"usage":[1]}',
    b'"type":"message_start"', b'{"type":"response.completed","response":{"id":7}}', b'{"choices":{"a":1}}',
    b'{"type":[]}', b'{"type":{},"response":{}}', b'{"type":["error"],"response":{"id":"r"}}', b'{"type":7}',
    b'{"choices":[null]}', b'{"choices":[{"index":[]}]}', b"\xef\xbb\xbf", b"\xff", b"\x00",
    b"\xed\xa0\x80", b"[" * 2000, b"\x1b[2J", "\u202e".encode(),
]  # fmt: skip
_STREAM = st.lists(st.sampled_from(_PIECES) | st.binary(max_size=8), max_size=14)


def _readers() -> list[StreamReader | TypedStreamReader]:
    return [
        StreamReader(endpoint="chat/completions", hides_usage=True),
        StreamReader(endpoint="completions"),
        TypedStreamReader(Family.ANTHROPIC, content_type="text/event-stream"),
        TypedStreamReader(Family.RESPONSES, content_type="text/event-stream"),
    ]


@given(_STREAM, st.integers(1, 40))
@few
def test_a_stream_of_anything_ends_with_a_verdict(pieces: list[bytes], size: int) -> None:
    """However it is cut into chunks; none passes more than it got."""
    data = b"".join(pieces)
    for reader in _readers():
        passed = b""
        try:
            for at in range(0, len(data), size):
                passed += reader.feed(data[at : at + size])
            passed += reader.finish()
        except AIClientError:
            continue
        assert len(passed) <= len(data) + 4
        assert reader.is_whole in (True, False)
        assert reader.usage is None or reader.usage.total_tokens >= 0
    parser = SSEParser()
    with suppress(AIClientError):
        assert all(isinstance(each, dict) for each in [*parser.feed(data), *parser.rest()])


_HEADER = st.text(st.characters(codec="latin-1"), max_size=30) | st.sampled_from(
    [
        "1e999",
        "nan",
        "-1",
        "9" * 400,
        "1s",
        "1h2m3.5s",
        "Thu, 99 Foo 2023",
        "Wed, 21 Oct 9999 07:28:00 GMT",
        "1ms",
        "²",
    ]
)
_NAMES = st.sampled_from(
    [
        "retry-after", "retry-after-ms", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", "content-type",
        "anthropic-ratelimit-requests-reset", "x-ratelimit-reset", "x-should-retry",
    ]
)  # fmt: skip


@given(
    st.dictionaries(_NAMES, _HEADER), st.sampled_from([400, 401, 404, 408, 429, 499, 500, 529, 599]), _STREAM
)
@few
def test_an_error_answer_of_anything_is_one_of_our_errors(
    given: dict[str, str], status: int, pieces: list[bytes]
) -> None:
    """A wait that it asks for is a number of seconds that somebody can wait."""
    body = b"".join(pieces)
    error = error_from_answer(
        status, given, body, model="m", key_fingerprint="0" * 12, request_id="r", wall_s=1.7e9
    )
    assert isinstance(error, AIClientError)
    assert str(error).isprintable()
    for wait_s in (
        getattr(error, "retry_after_s", None),
        limit_headers.retry_after_s(given, wall_s=1.7e9),
        limit_headers.spent_limit_s(given, wall_s=1.7e9),
    ):
        assert wait_s is None or 0 <= wait_s < 10**9
    limit_headers.rate_limits(given)
    read_body(body, "chat/completions")


@given(st.lists(st.tuples(st.sampled_from(sorted(headers._TAKERS)), st.binary(max_size=40)), max_size=5))
@few
def test_callers_headers_of_anything_steer_or_are_refused(given: list[tuple[bytes, bytes]]) -> None:
    """An idempotency key, a deadline, a tenant among them."""
    read = headers.read(given)
    assert isinstance(read, Steering | Failure)
    if isinstance(read, Steering):
        assert read.deadline_s is None or 0 < read.deadline_s <= headers.MAX_DEADLINE_S
        for text in read.passed().values():
            assert "\n" not in text
            assert "\r" not in text


_SECTIONS = st.sampled_from(
    ["api", "gateway", "tenant a", "tenant", "budget", "limit x", "model_costs", "", "a]b", "traces"]
)
_LINE = st.sampled_from(
    ["daily_usd = nan", "port = 1e9", "uid = -1", "rate_share = 2", "x", "= 1", "gpt = 1, 2", " y = 1"]
)
_TEXT = st.lists(st.builds("[{}]".format, _SECTIONS) | _LINE | st.text(max_size=20), max_size=12).map(
    "\n".join
)


@given(_TEXT)
@few
def test_a_configuration_of_anything_is_read_or_its_faults_are_told(text: str) -> None:
    """Each with a line and a reason; what is told fits a terminal."""
    told = ""
    try:
        loads(text, path="ai-client.conf")
    except ConfigError as error:
        told = str(error)
    assert all(line.isprintable() for line in told.split("\n"))


@given(st.binary(max_size=60))
@few
def test_a_key_file_of_anything_holds_a_key_or_not(tmp_path: Path, content: bytes) -> None:
    """And what it holds is never told."""
    path = tmp_path / "key"
    path.write_bytes(content)
    text = content.decode("utf-8", "replace").strip()
    told, secret = "", ""
    try:
        secret = read_keys(key_file=path, environment={}).current.secret
    except KeyMissingError as error:
        told = str(error)
    assert len(text) < 8 or text not in told
    assert secret.isascii()
    assert not secret or secret.isprintable()


@given(_STREAM, st.integers(1, 10**6))
@few
def test_a_batchs_line_of_anything_is_a_request_or_a_bad_line(pieces: list[bytes], number: int) -> None:
    """And either can be written to the output, one line each."""
    raw = b"".join(pieces).replace(b"\n", b" ")
    for text in (raw, b'{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":' + raw + b"}"):
        line = lines.parse(number, text)
        if isinstance(line, lines.BadLine):
            out = lines.rejection(line)
        else:
            out = lines.failure(line, status=500, code="x", message="y", body=raw)
        assert out.count(b"\n") == 1
        assert out.endswith(b"\n")
        lines.scan(raw)


_CHANGES = st.lists(
    st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=16)), min_size=1, max_size=6
)


def _spoil(path: Path, changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(path.read_bytes())
    for at, new in changes:
        place = at % max(1, len(content))
        content[place : place + len(new)] = new
    path.write_bytes(bytes(content))


def _prices() -> Prices:
    return Prices({"m": Price(input_nusd=1, output_nusd=1, cached_input_nusd=1)})


@given(_CHANGES)
@example([(1026, bytes(3))])  # the row that says who can read the file is gone
@fewer
def test_a_ledger_of_anything_is_told_and_stops_no_request(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]]
) -> None:
    """Without a hard budget requests go on."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"

    async def use() -> None:
        ledger = SpendLedger(path, prices=_prices())
        try:
            entry = await ledger.reserve(request_id="r", model="m", tenant="t", upper=Usage(5, 5))
            ledger.settle(entry, Usage(1, 1))
        finally:
            ledger.close()

    asyncio.run(use())
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    _spoil(path, changes)
    asyncio.run(use())


@given(_CHANGES, st.booleans())
@fewer
def test_a_trail_of_anything_is_gone_on_with_and_its_fault_found(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]], of_head: bool
) -> None:
    """A head that is spoilt may be settled by the next start; lines that are, never pass."""
    folder = tmp_path_factory.mktemp("audit")
    trail = AuditTrail(folder, retention_days=3, clock=lambda: 1.7e9)
    for number in range(4):
        trail._waiting.append(b'{"kind":"call","request_id":"r%d"}' % number)
    trail.close()
    path = folder / HEAD_NAME if of_head else next(folder.glob("audit-*.jsonl"))
    before = path.read_bytes()
    _spoil(path, changes)
    spoilt = path.read_bytes()
    if spoilt != before and not (of_head and parse_head(spoilt) == parse_head(before)):
        assert verify(folder).problems
    trail = AuditTrail(folder, retention_days=3, clock=lambda: 1.7e9)
    trail._waiting.append(b'{"kind":"call","request_id":"last"}')
    trail.close()
    assert b"last" in next(folder.glob("audit-*.jsonl")).read_bytes()


@given(_CHANGES)
@fewer
def test_a_cache_of_anything_answers_what_was_put_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]]
) -> None:
    """And takes answers again."""
    folder = tmp_path_factory.mktemp("cache")
    body = b'{"choices": [{"index": 0, "message": {"content": "hello"}}]}'
    request = Request(endpoint="chat/completions", body={"model": "m", "messages": []})
    answer = CachedResponse(status=200, headers={}, body=body, model="m")

    def use(*, puts: bool) -> Any:
        cache = ResponseCache(folder, scope="s", max_bytes=10**7)
        try:
            key = cache.key(request, "t")
            if puts:
                cache.put(key, answer, ttl_s=60)
                cache.flush()
            return cache.get(key)
        finally:
            cache.close()

    use(puts=True)
    for path in folder.glob("*.sqlite"):
        _spoil(path, changes)
    found = use(puts=False)
    assert found is None or found.status == 200
    use(puts=True)


@given(_CHANGES)
@fewer
def test_a_window_of_anything_is_a_window(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]]
) -> None:
    """What makes no sense in it counts for nothing."""
    folder = tmp_path_factory.mktemp("window")
    log = SentLog(folder, slots=50)
    log.sent(at_s=1.7e9, tokens=5)
    log.close()
    for path in folder.iterdir():
        _spoil(path, changes)
    log = SentLog(folder, slots=50)
    for at_s, count, tokens in log.snapshot(since_s=1.7e9 - 61)["entries"]:
        assert at_s >= 1.7e9 - 61
        assert count >= 0
        assert tokens >= 0
    log.close()
