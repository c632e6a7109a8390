"""The error tree: its drawing, its texts, its facts, and what must never be in it."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ai_client.errors as module
from ai_client.errors import AIClientError, MaxRetriesExceeded, RateLimitError, ServerError, redact

CLASSES = [each for _, each in inspect.getmembers(module, inspect.isclass) if issubclass(each, AIClientError)]


def test_the_drawing_names_every_error_and_no_other() -> None:
    """At the top of the module; indented as the classes inherit."""
    assert module.__doc__ is not None
    drawn = re.findall(r"^(?:[│ ]*[├└]── )(\w+)", module.__doc__, re.MULTILINE)
    assert sorted(drawn) == sorted(each.__name__ for each in CLASSES if each is not AIClientError)


@pytest.mark.parametrize("error", CLASSES, ids=lambda each: each.__name__)
def test_every_error_is_documented_with_a_remedy_and_knows_how_the_gateway_answers(
    error: type[AIClientError],
) -> None:
    """Docstring, default remedy, status and code."""
    assert error.__doc__
    assert error.default_remedy.endswith(".")
    assert 400 <= error.http_status < 600
    assert re.fullmatch(r"[a-z_]+", error.code)


def test_an_error_tells_culprit_reason_and_remedy() -> None:
    """In that order, in one line."""
    error = ServerError("upstream", "503 overloaded", status=503)
    assert str(error) == "upstream: 503 overloaded. Try again later; see the upstream's status."


@pytest.mark.parametrize("error", CLASSES, ids=lambda each: each.__name__)
def test_every_error_survives_pickle_and_copy(error: type[AIClientError]) -> None:
    """Worker processes hand them over; a shared call hands copies to its callers."""
    made = error.__new__(error)
    AIClientError.__init__(made, "culprit", "reason")
    made.__dict__["fact"] = 5
    for again in (pickle.loads(pickle.dumps(made)), copy.copy(made)):  # noqa: S301 - our own bytes
        assert (type(again), str(again), again.fact) == (error, str(made), 5)


def test_max_retries_tells_the_last_failure_and_its_remedy() -> None:
    """And passes its Retry-After on."""
    last = RateLimitError("upstream", "429 slow down", retry_after_s=7.0)
    error = MaxRetriesExceeded("request r1", attempts=4, last=last)
    assert "failed 4 times" in str(error)
    assert "429 slow down" in str(error)
    assert error.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key hs_live_abcdef0123 refused", "key hs_live_… refused"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer …"),
        ("sk-proj-abcdefgh12345678", "sk-…"),
        ("http://user:secret@proxy:3128/ failed", "http://user:…@proxy:3128/ failed"),
        ("https://host/path is fine", "https://host/path is fine"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, expected: str) -> None:
    """Its kind stays, for the reader."""
    assert redact(text) == expected


@given(st.text(alphabet="abcdefghijklmnop0123456789_-", min_size=8, max_size=40), st.text(max_size=30))
def test_no_key_gets_through_an_error(secret: str, around: str) -> None:
    """Wherever it stands in the text."""
    error = ServerError(
        f"{around} hs_test_{secret}", f"Bearer {secret} {around}", remedy=f"use hs_live_{secret}"
    )
    assert f"hs_test_{secret}" not in str(error)
    assert f"Bearer {secret}" not in repr(error)
    assert f"hs_live_{secret}" not in str(error.args)


@pytest.mark.parametrize("piece", ["a", "a.", "a:", "a://", "://a:", "sk-", "bearer ", "@", "a:b@", "\n"])
def test_masking_takes_a_time_that_grows_with_the_text(piece: str) -> None:
    """Others wrote it: with the square of the length a log line of 64 KB took minutes, and nobody was served."""
    began_s = process_time()
    redact(piece * (300_000 // len(piece)))
    assert process_time() - began_s < 3.0


@pytest.mark.parametrize("before", ["", " ", "1", "x", "-", "(", '"', "ſ", "postgres+"])
def test_a_password_in_an_address_is_masked_whatever_stands_before_it(before: str) -> None:
    """A scheme begins with a letter; what is glued to it does not hide it."""
    assert redact(f"{before}https://me:tops3cret@host/x") == f"{before}https://me:…@host/x"
