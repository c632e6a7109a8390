"""Streams whose events have a type: how they end, what they used, and what of an error the caller gets."""

from __future__ import annotations

import json

import pytest

from ai_client.contract.apis import Family
from ai_client.contract.request import Usage
from ai_client.dialects.typed_streams import TypedStreamReader


def event(kind: str, **more: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


MESSAGE = event("message_start", message={"usage": {"input_tokens": 7, "cache_read_input_tokens": 3}})
END = event("message_delta", usage={"output_tokens": 5}) + event("message_stop")
ANTHROPIC_ERROR = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
CREATED = event("response.created", response={"id": "resp_1"})
ITEM = event("response.output_item.added", item={"type": "message"})
TEXT = event("content_block_start", content_block={"type": "text", "text": ""})
PING = event("ping")
FAILED = event(
    "response.failed", response={"id": "resp_1", "error": {"code": "server_error", "message": "boom"}}
)


def test_a_message_is_whole_by_its_last_event() -> None:
    """Its usage comes in two parts, the cache beside the input."""
    reader = TypedStreamReader(Family.ANTHROPIC)
    assert reader.feed(MESSAGE) + reader.feed(END) + reader.finish() == MESSAGE + END
    assert reader.is_whole
    assert reader.usage == Usage(10, 5, 3)


@pytest.mark.parametrize(
    ("family", "error"), [(Family.ANTHROPIC, ANTHROPIC_ERROR), (Family.RESPONSES, FAILED)]
)
def test_an_error_before_anything_else_is_kept_back(family: Family, error: bytes) -> None:
    """So that another try, or a fallback, may answer."""
    reader = TypedStreamReader(family)
    assert reader.feed(error) + reader.finish() == b""
    assert reader.is_broken
    assert not reader.has_told_fault
    assert reader.fault is not None


@pytest.mark.parametrize(
    ("family", "heads", "error"),
    [
        (Family.ANTHROPIC, [MESSAGE, PING], ANTHROPIC_ERROR),
        (Family.RESPONSES, [CREATED, event("response.in_progress", response={"id": "resp_1"})], FAILED),
    ],
)
def test_an_error_behind_heads_alone_is_kept_back_with_them(
    family: Family, heads: list[bytes], error: bytes
) -> None:
    """Nothing of an answer was handed on, so that another try, or a fallback, may still answer."""
    reader = TypedStreamReader(family)
    assert [reader.feed(piece) for piece in (*heads, error)] == [b""] * (len(heads) + 1)
    assert reader.finish() == b""
    assert reader.is_broken
    assert not reader.has_begun


@pytest.mark.parametrize(
    ("family", "heads", "more"),
    [
        (Family.ANTHROPIC, MESSAGE + PING, TEXT),
        (Family.ANTHROPIC, MESSAGE + PING, PING),
        (Family.ANTHROPIC, MESSAGE, b": still there\n\n"),
        (Family.RESPONSES, CREATED, ITEM),
        (Family.RESPONSES, b"", event("response.created", response={"id": "resp_1", "background": True})),
    ],
)
def test_heads_go_to_the_caller_with_what_comes_behind_them(
    family: Family, heads: bytes, more: bytes
) -> None:
    """Or with a sign that there is long to wait; one of the background at once, since its id is the way back."""
    whole = heads + more
    for size in (1, 7, len(heads) or len(whole), len(whole)):
        reader = TypedStreamReader(family)
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert b"".join(reader.feed(piece) for piece in pieces) == whole
        assert reader.has_begun


@pytest.mark.parametrize(
    ("family", "before", "error"),
    [(Family.ANTHROPIC, MESSAGE + TEXT, ANTHROPIC_ERROR), (Family.RESPONSES, CREATED + ITEM, FAILED)],
)
def test_a_later_error_goes_to_the_caller_in_the_upstreams_words(
    family: Family, before: bytes, error: bytes
) -> None:
    """Its SDK knows that form."""
    reader = TypedStreamReader(family)
    assert reader.feed(before) + reader.feed(error) + reader.finish() == before + error
    assert reader.has_told_fault
    assert not reader.is_whole


def test_a_body_in_the_place_of_events_is_no_stream() -> None:
    """It is judged as a body."""
    reader = TypedStreamReader(Family.RESPONSES)
    assert reader.feed(b'{"error": {"message": "no"}}') + reader.finish() == b""
    assert reader.body == b'{"error": {"message": "no"}}'
    assert not reader.is_whole


@pytest.mark.parametrize(
    ("last", "is_whole"),
    [(b"", True), (b"event: message_st", False), (b'event: message_stop\ndata: {"type":"m', False)],
)
def test_a_message_that_says_why_it_ended_gets_its_last_event(last: bytes, is_whole: bool) -> None:
    """Unless a part of one more event came, which no reader could make anything of."""
    reader = TypedStreamReader(Family.ANTHROPIC)
    reader.feed(b'data: {"type": "message_start", "message": {"usage": {"input_tokens": 3}}}\n\n')
    reader.feed(b'data: {"type": "content_block_start", "index": 0}\n\n')
    reader.feed(b'data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}\n\n' + last)
    assert (b"message_stop" in reader.finish()) is is_whole
    assert reader.is_whole is is_whole
