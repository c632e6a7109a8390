"""What is passed on of a stream, when it is whole, and what it used."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_client.contract.request import Usage
from ai_client.dialects.body_reader import read_body
from ai_client.dialects.stream_reader import StreamReader, is_whole_stream

DONE = b"data: [DONE]\n\n"
USAGE_EVENT = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def event(value: object, *, newline: str = "\n") -> bytes:
    return f"data: {json.dumps(value)}{newline}{newline}".encode()


def delta(text: str, finish: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], "usage": None}


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % len(data) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places) if start < end]


@given(st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_the_usage_event_is_taken_out_and_nothing_else(cuts: list[int], newline: str) -> None:
    """What the caller did not ask for it does not see; all else passes byte by byte."""
    kept = event(delta("one"), newline=newline) + event(
        {"choices": [], "prompt_filter_results": []}, newline=newline
    )
    end = f"data: [DONE]{newline}{newline}".encode()
    whole = kept + event(USAGE_EVENT, newline=newline) + end
    reader = StreamReader(hides_usage=True)
    passed = b"".join(reader.feed(piece) for piece in pieces(whole, cuts)) + reader.finish()
    assert passed == kept + end
    assert reader.is_whole
    assert reader.usage == Usage(7, 3)


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_an_error_event_ends_it_whatever_the_cuts(cuts: list[int]) -> None:
    """What came before is passed on, the error and what follows it are not."""
    before = event(delta("one"))
    whole = (
        before + event({"error": {"message": "overloaded", "code": 503}}) + event(delta("two", "stop")) + DONE
    )
    reader = StreamReader()
    assert b"".join(reader.feed(piece) for piece in pieces(whole, cuts)) + reader.finish() == before
    assert reader.fault is not None
    assert reader.fault.message == "overloaded"
    assert not reader.is_whole


def test_a_text_that_speaks_of_errors_and_ends_is_none() -> None:
    """Texts of models are strings within JSON."""
    reader = StreamReader()
    reader.feed(event(delta('"error": {"message": "no"}')) + event(delta("data: [DONE]")))
    assert reader.fault is None
    assert not reader.is_whole


def test_a_whole_answer_gets_the_end_marker_that_its_upstream_left_out() -> None:
    """Readers wait for it, and recorded streams are known by it."""
    reader = StreamReader()
    passed = reader.feed(event(delta("all", "stop"))) + reader.finish()
    assert passed == event(delta("all", "stop")) + DONE
    assert is_whole_stream(passed)
    assert not is_whole_stream(event(delta("all", "stop")))


def test_every_choice_has_to_finish() -> None:
    """Of two, one that ended is not all."""
    second = {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": None}]}
    reader = StreamReader()
    reader.feed(event(delta("a")) + event(second) + event(delta("", "stop")))
    reader.finish()
    assert not reader.is_whole


def _choice(index: int, finish: str | None = None) -> bytes:
    return event({"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": finish}]})


_ENDINGS = {0: _choice(0, "stop"), 1: _choice(1, "stop"), 2: _choice(2, "length")}


@given(st.permutations([0, 0, 1, 1, 2, 2]), st.sets(st.sampled_from([0, 1, 2])), st.booleans())
def test_choices_are_whole_when_each_that_began_has_finished(
    order: list[int], cut: set[int], one_by_one: bool
) -> None:
    """In whatever order they come: beside each other, or one after the other. Of those in `cut` the end is missing."""
    seen: set[int] = set()
    events = []
    for index in order:
        if index not in seen:
            events.append(_choice(index))
        elif index not in cut:
            # What comes late of one that has finished, opens it no more.
            events += [_ENDINGS[index], _choice(index)]
        seen.add(index)
    reader = StreamReader()
    for piece in events if one_by_one else [b"".join(events)]:
        reader.feed(piece)
    passed = reader.finish()
    assert reader.is_whole is (not cut)
    assert passed == (b"" if cut else DONE)


def test_the_bytes_of_deltas_bound_the_tokens() -> None:
    """No token of a text is less than a byte: neither of content, nor of a tool's arguments."""
    reader = StreamReader()
    reader.feed(b"".join(event(delta(text)) for text in ("one", "zwei äöü", "")))
    assert len("onezwei äöü".encode()) <= reader.delta_bytes <= 200
    call = {"tool_calls": [{"index": 0, "function": {"arguments": "x" * 500}}]}
    reader.feed(event({"choices": [{"index": 0, "delta": call}]}))
    assert reader.delta_bytes >= 500


def test_events_before_an_odd_one_are_counted_once() -> None:
    """In one piece or each by itself: what was already read is not read again."""
    odd = event({"choices": [{"index": 0, "delta": {"content": ""}, "usage": {"prompt_tokens": 1}}]})
    events = [event(delta("x" * 100)), event(delta("y" * 100)), odd]
    together, apart = StreamReader(), StreamReader()
    together.feed(b"".join(events))
    for each in events:
        apart.feed(each)
    assert together.delta_bytes == apart.delta_bytes


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"data": [{"embedding": ['
            + b"0.5," * 50_000
            + b'0]}], "usage": {"prompt_tokens": 9, "total_tokens": 9}}',
            Usage(9, 0),
        ),
        (
            b'{"usage": {"prompt_tokens": 9}, "data": [{"embedding": [' + b"0.5," * 50_000 + b"0]}]}",
            Usage(9, 0),
        ),
        (b'{"data": [{"embedding": [' + b"0.5," * 50_000 + b"0]}]}", None),
    ],
)
def test_the_usage_of_many_vectors_is_found_at_either_end(body: bytes, expected: Usage | None) -> None:
    """Without parsing megabytes of numbers."""
    verdict = read_body(body, "embeddings")
    assert verdict.usage == expected
    assert verdict.trouble is None
    assert verdict.fault is None


_TOLD = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
_EVENTS = st.sampled_from(
    [
        event(delta("one")),
        event(delta("two", "stop")),
        event(delta("three", "error")),
        event(USAGE_EVENT),
        event({**USAGE_EVENT, "usage": _TOLD, "service_tier": "flex"}),
        event({**USAGE_EVENT, "error": {"message": "no"}}),
        event({**USAGE_EVENT, "object": "response", "status": "failed"}),
        event({**USAGE_EVENT, "type": "error"}),
        event({**USAGE_EVENT, "x_groq": {"error": "over"}}),
        event({"choices": [], "usage": {}}),
        event({"choices": [], "prompt_filter_results": []}),
        event({"detail": "no"}),
        b"data: no JSON\n\n",
        b": a comment\n\n",
        DONE,
        b"data: [done]\n\n",
    ]
)


@given(st.lists(_EVENTS, max_size=6), st.booleans())
def test_events_that_come_together_are_read_as_those_that_come_alone(
    events: list[bytes], hides_usage: bool
) -> None:
    """Whole events of one line are read by a shorter way, which comes to the same as byte after byte."""
    whole = b"".join(events)
    together, alone = StreamReader(hides_usage=hides_usage), StreamReader(hides_usage=hides_usage)
    passed = together.feed(whole) + together.finish()
    in_bytes = b"".join(alone.feed(whole[at : at + 1]) for at in range(len(whole))) + alone.finish()
    assert passed == in_bytes
    for name in (
        "usage",
        "fault",
        "trouble",
        "is_whole",
        "is_marked",
        "has_begun",
        "has_finished",
        "delta_bytes",
    ):
        assert getattr(together, name) == getattr(alone, name), name
    assert together.has_told_all(choices=1) == alone.has_told_all(choices=1)


ROLE = event(
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
)


@given(st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from(["\n", "\r\n", "\r"]))
def test_heads_wait_and_comments_between_them_do_not(cuts: list[int], newline: str) -> None:
    """Whatever the cuts: a comment is passed on before what a head waits for has come, and in the end all is there."""
    head, comment = ROLE.decode().replace("\n", newline).encode(), f": working{newline}{newline}".encode()
    reader, passed = StreamReader(), b""
    for piece in pieces(head + comment + head, cuts):
        passed += reader.feed(piece)
    assert passed.strip() == comment.strip()
    assert not reader.has_begun
    rest = event(delta("all", "stop"), newline=newline) + f"data: [DONE]{newline}{newline}".encode()
    passed += reader.feed(rest)
    assert sorted(passed) == sorted(head + comment + head + rest)
    assert passed.endswith(head + head + rest)
    assert reader.has_begun
    assert reader.is_whole


def test_heads_that_waited_long_are_passed_on() -> None:
    """Then the answer has begun, and an error behind them is one within it."""
    reader = StreamReader()
    assert reader.feed(ROLE) == b""
    assert reader.is_holding
    assert reader.let_go() == ROLE
    assert not reader.is_holding
    assert reader.feed(event({"error": {"message": "overloaded"}})) == b""
    assert reader.has_begun
    assert reader.fault is not None
