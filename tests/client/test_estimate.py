"""How many tokens a request may take."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ai_client.estimate import Estimate, TokenRate, estimate
from ai_client.request import Request


def guess(endpoint: str = "chat/completions", rate: TokenRate | None = None, **body: Any) -> Estimate:
    request = Request(endpoint=endpoint, body=body)
    return estimate(
        request, json.dumps(body).encode(), rate or TokenRate(), default_output=1000, unbounded_output=9000
    )


@pytest.mark.parametrize(
    ("body", "output", "is_bounded"),
    [
        ({"max_tokens": 50}, 50, True),
        ({"max_completion_tokens": 60, "max_tokens": 50}, 60, True),
        ({"max_tokens": 50, "n": 3}, 150, True),
        ({"max_tokens": 50, "n": 3, "best_of": 5}, 250, True),
        ({"max_tokens": 0}, 0, True),
        ({}, 9000, False),
        ({"max_tokens": None}, 9000, False),
        ({"max_tokens": "50"}, 9000, False),
        ({"max_tokens": True}, 9000, False),
        ({"max_tokens": -1}, 9000, False),
        ({"max_tokens": 50, "n": "x"}, 50, True),
    ],
)
def test_the_bound_on_output(body: dict[str, Any], output: int, is_bounded: bool) -> None:
    """What the caller allows, for as many choices as it asks for."""
    result = guess(**body)
    assert (result.upper.output_tokens, result.is_bounded) == (output, is_bounded)


def test_embeddings_have_no_output() -> None:
    """And are bounded by nature."""
    result = guess("embeddings", input=["a", "b"])
    assert (result.upper.output_tokens, result.is_bounded) == (0, True)


def test_no_more_tokens_than_bytes_are_ever_set_aside_for_input() -> None:
    """No tokenizer has more, which makes it a true bound."""
    text = "a" * 1000
    result = guess(messages=[{"role": "user", "content": text}], max_tokens=1)
    assert result.upper.input_tokens >= 1000
    assert result.reserve_tokens < result.upper.total_tokens


def test_an_inline_image_counts_by_its_tokens_not_its_bytes() -> None:
    """A megabyte of base64 is a few thousand tokens."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    result = guess(messages=[{"role": "user", "content": [image]}], max_tokens=1)
    assert 2500 <= result.reserve_tokens < 3000
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
