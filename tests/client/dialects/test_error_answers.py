"""From an upstream's answer to one of our errors."""

from __future__ import annotations

import json
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_client.dialects.error_answers import error_from_answer, parse_error_body
from ai_client.errors import (
    AIClientError,
    AuthenticationError,
    BadRequestError,
    ModelNotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UpstreamError,
)


def error(status: int, body: object = None, headers: dict[str, str] | None = None) -> AIClientError:
    return error_from_answer(
        status,
        headers or {},
        json.dumps(body).encode() if body is not None else b"",
        model="gpt-41",
        available_models=("gpt-4.1", "deepseek-v3.2"),
        key_fingerprint="abc",
        request_id="r1",
        wall_s=0.0,
    )


def said(message: str, **more: object) -> dict[str, object]:
    return {"error": {"message": message, **more}}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, UpstreamError),
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, BadRequestError),
        (408, ServerError),
        (409, BadRequestError),
        (413, BadRequestError),
        (422, BadRequestError),
        (429, RateLimitError),
        (500, ServerError),
        (503, ServerError),
        (529, ServerError),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[AIClientError]) -> None:
    """With the upstream's words, and the request's id."""
    result = error(status, said("because"))
    assert type(result) is kind
    assert result.request_id == "r1"
    if status >= 400:
        assert "because" in str(result)


def test_a_missing_model_is_told_with_the_nearest_name() -> None:
    """By code, by parameter, by text."""
    for body in (
        said("x", code="model_not_found"),
        said("x", param="model"),
        said("The model `gpt-41` is unknown"),
    ):
        result = error(404, body)
        assert isinstance(result, ModelNotFoundError)
        assert result.nearest == "gpt-4.1"
        assert "Did you mean gpt-4.1? Available: gpt-4.1, deepseek-v3.2." in str(result)


def test_a_429_tells_wait_limit_and_use() -> None:
    """From its headers."""
    headers = {
        "retry-after": "7",
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-limit-tokens": "5000",
        "x-ratelimit-remaining-tokens": "0",
    }
    result = error(429, said("slow down"), headers)
    assert isinstance(result, RateLimitError)
    assert (result.retry_after_s, result.limit, result.used) == (7.0, 5000, 5000)
    assert not result.quota_spent


def test_an_account_without_credit_is_told_apart() -> None:
    """Waiting does not help."""
    result = error(429, said("You exceeded your quota", code="insufficient_quota"))
    assert isinstance(result, RateLimitError)
    assert result.quota_spent
    assert "Add credit" in str(result)


def test_a_key_in_the_upstreams_text_is_masked() -> None:
    """Some echo what they refuse."""
    result = error(401, said("Incorrect API key provided: hs_test_0123456789abcdef"))
    assert "0123456789" not in str(result)
    assert "hs_test_…" in str(result)


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_no_body_raises(body: bytes) -> None:
    """An upstream in trouble may answer with anything."""
    assert isinstance(parse_error_body(body).message, str)


def test_a_long_page_is_cut_to_one_short_line() -> None:
    """A proxy's HTML page helps nobody."""
    message = parse_error_body(b"<html>\n" + b"<p>x</p>\n" * 1000).message
    assert len(message) <= 501
    assert "\n" not in message


@pytest.mark.parametrize("piece", ["1", "1s", "1m ", "a", "a.", " ", "1.", "try again in 1", "٣"])
def test_an_error_of_any_length_holds_nobody_up(piece: str) -> None:
    """Its texts are looked through for times and quotas: each is cut where it can mean nothing more."""
    text = piece * (400_000 // len(piece))
    details = [{"retryDelay": text}]
    began_s = process_time()
    for status in (400, 429, 503):
        told = error(
            status,
            said(text, code=text, type=text, param=text, details=details),
            {"retry-after": text[:60_000]},
        )
        assert len(str(told)) < 5000
    assert process_time() - began_s < 3.0
