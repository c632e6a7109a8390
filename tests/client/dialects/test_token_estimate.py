"""How many tokens a request may take."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ai_client.contract.options import ClientOptions
from ai_client.contract.request import Request
from ai_client.dialects.token_estimate import Estimate, TokenRate, estimate


def guess(endpoint: str = "chat/completions", rate: TokenRate | None = None, **body: Any) -> Estimate:
    request = Request(endpoint=endpoint, body=body)
    options = ClientOptions(default_output_tokens=1000, unbounded_output_tokens=9000)
    return estimate(
        request, json.dumps(body).encode(), rate or TokenRate(), options, model="m", may_cost=True
    )


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ({"max_tokens": 50}, 50),
        ({"max_completion_tokens": 60, "max_tokens": 50}, 60),
        ({"max_tokens": 50, "n": 3}, 150),
        ({"max_tokens": 50, "n": 3, "best_of": 5}, 250),
        ({"max_tokens": 0}, 9000),
        ({}, 9000),
        ({"max_tokens": None}, 9000),
        ({"max_tokens": "50"}, 50),
        ({"max_tokens": 50.2}, 51),
        ({"max_tokens": 50, "n": "3"}, 150),
        ({"max_tokens": 10**400}, 10**9),
        ({"max_tokens": True}, 9000),
        ({"max_tokens": -1}, 9000),
        ({"max_tokens": 50, "n": "x"}, 50),
    ],
)
def test_the_bound_on_output(body: dict[str, Any], output: int) -> None:
    """What the caller allows, for as many choices as it asks for."""
    result = guess(**body)
    assert result.bound.usage.output_tokens == output
    assert result.likely_tokens - output < 300 or output == 9000


def test_embeddings_have_no_output() -> None:
    """And are bounded by nature."""
    result = guess("embeddings", input=["a", "b"])
    assert result.bound.usage.output_tokens == 0
    assert result.likely_tokens < 20


def test_no_more_tokens_than_bytes_are_ever_set_aside_for_input() -> None:
    """No tokenizer has more, which makes it a true bound."""
    text = "a" * 1000
    result = guess(messages=[{"role": "user", "content": text}], max_tokens=1)
    assert result.bound.usage.input_tokens >= 1000
    assert result.likely_tokens < result.bound.usage.total_tokens


def test_only_what_is_surely_too_much_for_a_minute_is_refused() -> None:
    """A guess is cut down to the limit; what the caller allows as output is not."""
    text = {"messages": [{"role": "user", "content": "word " * 2000}]}
    assert guess(**text, max_tokens=1000).reserve(100_000) > 5000
    assert guess(**text, max_tokens=1000).reserve(4000) == 4000
    assert guess(**text, max_tokens=5000).reserve(4000) > 5000
    assert guess(**text).reserve(4000) == 4000


def test_an_inline_image_counts_by_its_tokens_not_its_bytes() -> None:
    """A megabyte of base64 is a few thousand tokens."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    result = guess(messages=[{"role": "user", "content": [image]}], max_tokens=1)
    assert 2500 <= result.likely_tokens < 3000
    assert result.input_bytes == 0


def test_the_rate_rises_at_once_and_sinks_slowly() -> None:
    """The reserve is near the truth after some requests, and seldom below it."""
    rate = TokenRate()
    rate.learn(1000, 700)
    assert rate.per_byte == pytest.approx(0.735)
    for _ in range(400):
        rate.learn(1000, 250)
    assert rate.per_byte == pytest.approx(0.2625, rel=0.01)
    rate.learn(1000, 5000)
    assert rate.per_byte == 1.0
    rate.learn(0, 5)
    assert rate.per_byte == 1.0
