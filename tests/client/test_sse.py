"""Server-sent events, however the network cuts them."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_client.errors import MalformedResponseError
from ai_client.request import Usage
from ai_client.sse import SSEParser, StreamTail, UsageEventFilter, usage_at_end


def event(value: object, *, newline: str = "\n") -> bytes:
    return f"data: {json.dumps(value)}{newline}{newline}".encode()


def delta(text: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}}], "usage": None}


USAGE_EVENT = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
DONE = b"data: [DONE]\n\n"
WHOLE = event(delta("one")) + event(delta("zwei äöü")) + event(USAGE_EVENT) + DONE


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % len(data) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places) if start < end]


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_the_parser_does_not_depend_on_the_cuts(cuts: list[int]) -> None:
    """Within a line, within a character, anywhere."""
    parser = SSEParser()
    parsed = [value for piece in pieces(WHOLE, cuts) for value in parser.feed(piece)]
    assert parsed == [delta("one"), delta("zwei äöü"), USAGE_EVENT]
    assert parser.done


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_the_tail_knows_the_usage_and_whether_it_was_whole(cuts: list[int]) -> None:
    """Whatever the cuts."""
    tail = StreamTail()
    for piece in pieces(WHOLE, cuts):
        tail.feed(piece)
    assert tail.is_complete
    assert not tail.says_error
    assert tail.usage == Usage(7, 3)


@given(st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_the_usage_event_is_taken_out_and_nothing_else(cuts: list[int], newline: str) -> None:
    """What the caller did not ask for it does not see; all else passes byte by byte."""
    kept = event(delta("one"), newline=newline) + event(
        {"choices": [], "prompt_filter_results": []}, newline=newline
    )
    end = f"data: [DONE]{newline}{newline}".encode()
    whole = kept + event(USAGE_EVENT, newline=newline) + end
    taken = UsageEventFilter()
    passed = b"".join(taken.feed(piece) for piece in pieces(whole, cuts)) + taken.rest()
    assert passed == kept + end


def test_whole_events_pass_the_filter_at_once() -> None:
    """Nothing is held back but the begin of an event."""
    taken = UsageEventFilter()
    assert taken.feed(event(delta("one"))) == event(delta("one"))
    assert taken.feed(event(delta("two")) + b"data: {") == event(delta("two"))


def test_a_stream_without_its_end_marker_is_not_whole() -> None:
    """A text that only speaks of the marker is none."""
    tail = StreamTail()
    tail.feed(event(delta("data: [DONE]")))
    assert not tail.is_complete


def test_an_error_event_is_seen() -> None:
    """Not a text that speaks of one."""
    tail = StreamTail()
    tail.feed(event(delta('"error": {')))
    assert not tail.says_error
    tail.feed(event({"error": {"message": "overloaded"}}))
    assert tail.says_error


def test_a_long_stream_keeps_only_its_tail() -> None:
    """Memory does not grow with the answer."""
    tail = StreamTail()
    for _ in range(2000):
        tail.feed(event(delta("x" * 100)))
    tail.feed(event(USAGE_EVENT) + DONE)
    assert tail.usage == Usage(7, 3)
    assert tail._kept_bytes <= 16 * 1024 + 200


@pytest.mark.parametrize("line", [b"data: {broken\n", b"data: 5\n", b"data: [1]\n"])
def test_an_event_that_is_no_object_is_malformed(line: bytes) -> None:
    """Told as an error of ours."""
    with pytest.raises(MalformedResponseError):
        SSEParser().feed(line)


def test_comments_and_other_fields_are_passed_over() -> None:
    """Keep-alive comments, event names."""
    parser = SSEParser()
    assert parser.feed(b": ping\n\nevent: message\nid: 5\ndata:\n\n" + event({"a": 1})) == [{"a": 1}]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"data": [' + b"0.5," * 50_000 + b'0], "usage": {"prompt_tokens": 9, "total_tokens": 9}}',
            Usage(9, 0),
        ),
        (
            b'{"usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}}',
            Usage(9, 2, 4),
        ),
        (b'{"usage": {"prompt_tokens": "nine"}}', None),
        (b'{"data": []}', None),
    ],
)
def test_the_usage_of_a_large_answer_is_found_at_its_end(body: bytes, expected: Usage | None) -> None:
    """Without parsing megabytes of numbers."""
    assert usage_at_end(body) == expected
