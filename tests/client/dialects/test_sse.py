"""Server-sent events, however the network cuts them."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_client.dialects.sse import MOST_EVENT_BYTES, EventSplitter, SSEParser
from ai_client.errors import MalformedResponseError

DONE = "data: [DONE]\n\n"


def delta(text: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}}], "usage": None}


def event(value: object) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


USAGE_EVENT = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
WHOLE = event(delta("one")) + ": ping\n\n" + event(delta("zwei äöü")) + event(USAGE_EVENT) + DONE
Cuts = st.lists(st.integers(0, 10_000), max_size=12)
Newlines = st.sampled_from(["\n", "\r\n", "\r"])
Marks = st.sampled_from([b"", b"\xef\xbb\xbf"])


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % len(data) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places) if start < end]


@given(Cuts, Newlines, Marks)
def test_the_parser_does_not_depend_on_the_cuts(cuts: list[int], newline: str, mark: bytes) -> None:
    """Within a line, a line's end, a character or the byte order mark; with all three ends of lines."""
    parser = SSEParser()
    text = mark + WHOLE.replace("\n", newline).encode()
    parsed = [value for piece in pieces(text, cuts) for value in parser.feed(piece)]
    parsed += parser.rest()
    assert parsed == [delta("one"), delta("zwei äöü"), USAGE_EVENT]
    assert parser.done


@given(Cuts, Newlines, Marks)
def test_the_splitter_loses_and_adds_no_byte(cuts: list[int], newline: str, mark: bytes) -> None:
    """What is passed on is what came, but for a byte order mark."""
    splitter = EventSplitter()
    text = WHOLE.replace("\n", newline).encode()
    events = [event for piece in pieces(mark + text, cuts) for event in splitter.feed(piece)]
    assert b"".join(event.raw for event in [*events, *splitter.rest()]) == text


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_comment_of_one_line_passes_at_once(newline: bytes) -> None:
    """It keeps connections alive, for which it must not wait for what follows it."""
    splitter = EventSplitter()
    assert [event.raw for event in splitter.feed(b": keep-alive" + newline)] == [b": keep-alive" + newline]
    assert [event.raw for event in splitter.feed(b": again" + newline + b"data: {")] == [b": again" + newline]
    assert [event.data for event in splitter.feed(b"}" + newline * 2)] == [(b"{}",)]


def test_whole_events_pass_at_once() -> None:
    """Nothing is held back but the begin of an event."""
    splitter = EventSplitter()
    one, two = event(delta("one")).encode(), event(delta("two")).encode()
    assert [each.raw for each in splitter.feed(one + two + b"data: {")] == [one, two]


def test_an_event_may_have_several_data_lines() -> None:
    """One JSON text over lines; or, where servers leave out the empty lines, a text each."""
    over_lines = b'data: {"a":\ndata: 1}\n\n'
    each_its_own = b'data: {"b": 2}\ndata:{"c": 3}\ndata: [DONE]\n\n'
    parser = SSEParser()
    assert parser.feed(over_lines + each_its_own) == [{"a": 1}, {"b": 2}, {"c": 3}]
    assert parser.done


@pytest.mark.parametrize("line", [b"data: {broken\n\n", b"data: 5\n\n", b"data: [1]\n\n"])
def test_an_event_that_is_no_object_is_malformed(line: bytes) -> None:
    """Told as an error of ours."""
    with pytest.raises(MalformedResponseError):
        SSEParser().feed(line)


def test_comments_and_other_fields_are_passed_over() -> None:
    """Keep-alive comments, event names."""
    parser = SSEParser()
    text = b": ping\n\nevent: message\nid: 5\ndata:\n\n" + event({"a": 1}).encode()
    assert parser.feed(text) == [{"a": 1}]


def test_an_event_without_end_is_refused() -> None:
    """It must not fill our memory."""
    splitter = EventSplitter()
    piece = b"x" * (4 * 1024 * 1024)
    splitter.feed(b"data: ")
    for _ in range(MOST_EVENT_BYTES // len(piece) - 1):
        assert splitter.feed(piece) == []
    with pytest.raises(MalformedResponseError, match=str(MOST_EVENT_BYTES)):
        splitter.feed(piece)
