"""No body can stop others: what no part of the service could hold is refused at the door, with the field's name."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_client.gateway.app.failures import Failure
from ai_client.gateway.app.incoming import parse
from ai_client.ledger.prices import NANO_PER_DOLLAR

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}]}


def refused(fields: dict[str, Any] | bytes) -> Failure | None:
    """What the door says to a chat request with these fields beside the usual ones."""
    text = fields if isinstance(fields, bytes) else json.dumps(CHAT | fields).encode()
    parsed = parse(text)
    return parsed if isinstance(parsed, Failure) else None


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"])
@pytest.mark.parametrize(
    "value", [10**12, 10**16, 10**20, 10**400, -1, -5, 5.5, 1.0, 1e300, True, False, "5", [], {}]
)
def test_a_number_that_money_depends_on_is_a_whole_one_of_a_sane_size(name: str, value: object) -> None:
    """A provider may take 100.0, "100" or true for what a counter does not."""
    failure = refused({name: value})
    assert failure is not None
    assert (failure.status, failure.param) == (400, name)
    assert refused({name: 3}) is refused({name: None}) is None


@pytest.mark.parametrize("name", ["", "a", "gpt-4.1", "org/модель", "x" * 256])
def test_a_proper_name_passes(name: str) -> None:
    """Printable, in any alphabet."""
    assert refused({"model": name}) is None


@pytest.mark.parametrize(
    "name", ["x" * 257, "x" * 1_000_000, "a\nb", "a\0b", "\x1b[2J", "\u202e", "\ud800", 5, None, ["a"]]
)
def test_a_name_that_a_log_or_a_terminal_can_not_take_is_refused(name: object) -> None:
    """It would go into metrics, ledger, audit trail and status page."""
    failure = refused({"model": name})
    assert failure is not None
    assert (failure.status, failure.param) == (400, "model")
    assert len(failure.message) < 500


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"seed": 2**63}, "seed"),
        ({"metadata": {"deep": [{"er": -(10**30)}]}}, "metadata"),
        ({"user": "half \ud83d"}, "user"),
        ({"messages": [{"role": "user", "content": "\udc00"}]}, "messages"),
        ({"metadata": {"\ud800": 1}}, "metadata"),
    ],
)
def test_a_value_that_can_not_be_written_is_refused_wherever_it_is(
    fields: dict[str, Any], param: str
) -> None:
    """Beyond 64 bits, or half of a surrogate pair."""
    failure = refused(fields)
    assert failure is not None
    assert (failure.status, failure.param) == (400, param)


def test_a_whole_emoji_and_many_digits_in_a_text_pass() -> None:
    """They only look like what is refused."""
    assert refused({"user": "\U0001f600", "metadata": {"card": "9" * 40}, "seed": 2**63 - 1}) is None


def test_more_values_than_memory_is_for_are_refused_before_they_are_parsed() -> None:
    """Twenty megabytes of empty lists would be half a gigabyte of objects; a text with as many commas is none."""
    lists = b'{"messages":[' + b"[]," * 600_000 + b"[]]}"
    failure = refused(lists)
    assert failure is not None
    assert (failure.status, failure.code) == (400, "too_many_values")
    assert refused({"user": "a, [b], {c} " * 400_000}) is None


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["model", "n", "max_tokens", "seed", "user", "x"]), _ANYTHING))
def test_what_passes_can_be_written_and_counted(fields: dict[str, Any]) -> None:
    """Whatever is sent, the door raises nothing; what it lets in is UTF-8 and can be counted."""
    parsed = parse(json.dumps(CHAT | fields).encode())
    if isinstance(parsed, Failure):
        parsed.body().decode()
        return
    json.dumps(parsed, ensure_ascii=False).encode()
    worst_tokens = (parsed.get("max_tokens") or 0) * (parsed.get("n") or 1)
    assert worst_tokens * NANO_PER_DOLLAR // 1_000_000 < 2**63


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_any_bytes_are_a_body_or_a_400(body: bytes) -> None:
    """No exception leaves the door."""
    parsed = parse(body)
    assert isinstance(parsed, dict) or parsed.status == 400


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b",", id="what else stands between values"),
        pytest.param(b"\\u00e9,", id="escapes"),
        pytest.param(b'\\",', id="quotes"),
        pytest.param(b"\\\\,", id="backslashes"),
        pytest.param(b"1234567890", id="digits"),
    ],
)
def test_a_text_as_long_as_a_body_may_be_holds_nobody_up(text: bytes) -> None:
    """Nobody else is served while a body is looked at: twenty megabytes took ten seconds."""
    said = text * (15_000_000 // len(text))
    body = b'{"model":"m","messages":[{"role":"user","content":"' + said + b'"}]}'
    began_s = process_time()
    assert not isinstance(parse(body), Failure)
    assert process_time() - began_s < 3.0


def test_what_looks_like_a_text_does_not_hide_values() -> None:
    """Escaped quotes and backslashes before the end of a text."""
    values = b"[]," * 600_000 + b"[]"
    for text in (b'\\"', b"\\\\", b'\\\\\\"', b'\\"\\\\'):
        failure = refused(b'{"user":"' + text + b'","messages":[' + values + b"]}")
        assert failure is not None
        assert failure.code == "too_many_values"
    assert getattr(refused(b'{"a":"",' * 1_200_000 + b'"b":[]}'), "status", None) == 400
