"""A body that came as JSON keeps its text, and what is changed in it is all that changes."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ai_client.contract.written_body import WrittenBody, encoded, with_members, written

TEXT = b' {\r\n "a" : [1, 2 ],\t"m\\u006fdel":"x\\u0041\\"}," , "n":1.50e1 }\n'
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | some.text(),
    lambda each: some.lists(each, max_size=3) | some.dictionaries(some.text(max_size=5), each, max_size=3),
    max_leaves=8,
)
BODIES = some.dictionaries(some.text(max_size=8), VALUES, max_size=6)
LAYOUTS = some.sampled_from(
    (
        {"separators": (",", ":")},
        {"indent": 2},
        {"indent": "\t", "separators": (" , ", "\r\n: ")},
        {"ensure_ascii": False},
    )
)


def read(text: bytes) -> dict[str, Any]:
    """As the gateway reads it."""
    return written(json.loads(text), text)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model": "y"}, b' {\r\n "a" : [1, 2 ],\t"m\\u006fdel":"y" , "n":1.50e1 }\n'),
        ({"a": {}, "n": 2}, b' {\r\n "a" : {},\t"m\\u006fdel":"x\\u0041\\"}," , "n":2 }\n'),
        ({"b": 1, "c": "é"}, TEXT[:-3] + ',"b":1,"c":"é" }\n'.encode()),
    ],
)
def test_a_changed_member_is_all_that_changes(changes: dict[str, Any], text: bytes) -> None:
    """White space, escapes, the order and the spelling of numbers stay."""
    assert encoded(read(TEXT)) == TEXT
    assert encoded(with_members(read(TEXT), changes)) == text


@pytest.mark.parametrize(("text", "changed"), [(b"{}", b'{"a":1}'), (b"{ }\n", b'{"a":1 }\n')])
def test_an_empty_body_gets_members(text: bytes, changed: bytes) -> None:
    """Without a comma before them."""
    assert encoded(with_members(read(text), {"a": 1})) == changed


@given(body=BODIES, changes=BODIES, layout=LAYOUTS)
def test_text_and_body_always_say_the_same(
    body: dict[str, Any], changes: dict[str, Any], layout: dict[str, Any]
) -> None:
    """However it is written and whatever is changed."""
    text = json.dumps(body, **layout).encode("utf-8", "surrogatepass")
    changed = with_members(read(text), changes)
    assert isinstance(changed, WrittenBody)
    assert json.loads(encoded(changed)) == changed == {**body, **changes}
    assert encoded(read(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        b'{"model":"dear","model":"cheap"}',
        b'{"model":"dear","m\\u006fdel":"cheap"}',
        b'{"stream_options":{"include_usage":true,"include_usage":false}}',
        b'{"messages":[{"content":"' + b"long" * 9 + b'","content":""}]}',
    ],
)
def test_what_is_said_twice_goes_on_as_it_was_understood(text: bytes) -> None:
    """An upstream might take the other one, which was neither checked nor priced."""
    assert json.loads(encoded(read(text)), object_pairs_hook=list) == json.loads(
        json.dumps(json.loads(text)), object_pairs_hook=list
    )


@given(members=some.lists(some.tuples(some.text(max_size=3), VALUES), max_size=5), layout=LAYOUTS)
def test_a_text_stays_unless_it_says_something_twice(
    members: list[tuple[str, Any]], layout: dict[str, Any]
) -> None:
    """Whatever stands in the texts: colons, quotes, backslashes, other letters."""
    inner = [
        f"{json.dumps(name, **layout)} : {json.dumps({'in it': value, name: 1}, **layout)}"
        for name, value in members
    ]
    text = ("{" + " , ".join(inner) + "}").encode("utf-8", "surrogatepass")
    has_text = isinstance(read(text), WrittenBody)
    assert has_text == (len({name for name, _ in members}) == len(members))


def test_a_copy_by_hand_has_no_text() -> None:
    """It would be that of another body."""
    assert encoded({**read(TEXT), "a": 0}) == b'{"a":0,"model":"xA\\"},","n":15.0}'


@pytest.mark.parametrize("piece", [",", "\\\\", '\\"', "é"])
def test_a_member_with_a_long_name_holds_nobody_up(piece: str) -> None:
    """Names are stepped over when a member is changed."""
    name = json.loads(f'"{piece * 5_000_000}"')
    text = json.dumps({name: 1, "model": "x"}, ensure_ascii=False, separators=(",", ":")).encode()
    body = read(text)
    began_s = process_time()
    assert json.loads(encoded(with_members(body, {"model": "y"}))) == {name: 1, "model": "y"}
    assert process_time() - began_s < 3.0
