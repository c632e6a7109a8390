"""JSON on the hot path: what msgspec and the standard library do not agree on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_client.contract.request import Request
from ai_client.dialects.http_request import encode_body
from ai_client.errors import BadRequestError
from ai_client.platform.json_text import read_json, write_json, write_sorted_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Text(str):
    """As template engines have it."""

    __slots__ = ()


@given(VALUES)
def test_what_is_written_is_read_back_by_either(value: Any) -> None:
    """Upstreams read it with parsers of their own."""
    for text in (write_json(value), write_sorted_json(value)):
        assert json.loads(text) == value
        assert read_json(text) == value
    assert read_json(json.dumps(value).encode()) == value


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_sorted_text_does_not_depend_on_the_order(members: dict[str, int]) -> None:
    """One object, one text."""
    turned = dict(reversed(members.items()))
    assert write_sorted_json([members]) == write_sorted_json([turned])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": Text("x")}, '{"a":"x"}'),
        ({None: 1}, '{"null":1}'),
        ({"a": (1, 2)}, '{"a":[1,2]}'),
        ({"a": b"raw"}, '{"a":"cmF3"}'),
        ({"a": 2**70}, '{"a":1180591620717411303424}'),
        ({"ä": "\u2028"}, '{"ä":"\u2028"}'),
    ],
)
def test_what_msgspec_refuses_is_written_all_the_same(value: object, text: str) -> None:
    """As callers have always sent it."""
    assert write_json(value) == text.encode()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (rb'{"a": "\ud83d"}', {"a": "\ud83d"}),
        (b'{"a": Infinity}', {"a": float("inf")}),
        (b"\xef\xbb\xbf{}", {}),
    ],
)
def test_what_upstreams_send_beside_the_standard_is_read(text: bytes, value: object) -> None:
    """An emoji that was cut in two, a number that is none, a byte order mark."""
    assert read_json(text) == value


@pytest.mark.parametrize("text", [b"", b"{", b"nothing", b'{"a": "\xff"}', b"[" * 100_000])
def test_what_is_no_json_is_one_kind_of_error(text: bytes) -> None:
    """Also where it is nested to break parsers."""
    with pytest.raises(ValueError, match=r"JSON|Expecting|decode|nested"):
        read_json(text)


def nested() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("\ud83d", "surrogate"),
        (Text("\ud83d"), "surrogate"),
        (object(), "can't be written as JSON"),
        (nested(), "can't be written as JSON"),
    ],
    ids=["surrogate", "surrogate-in-a-subclass", "object", "nested"],
)
def test_a_body_that_can_t_be_sent_is_the_callers_error(content: object, reason: str) -> None:
    """Said before anything is sent, and never as bytes that are no UTF-8."""
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": content}]}
    with pytest.raises(BadRequestError, match=reason):
        encode_body(Request(endpoint="chat/completions", body=body))
