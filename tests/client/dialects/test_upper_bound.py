"""No request, whatever its fields hold, is billed more than was set aside for it: against a model of billing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ai_client.contract.request import Usage
from ai_client.dialects.model_facts import facts_of
from ai_client.dialects.upper_bound import MOST_TOKENS, UpperBound, bounded_fields, upper_bound
from ai_client.ledger.prices import Price

DEFAULT_OUTPUT = 16_384
PRICE = Price(10**9, 10**10, 10**8, cache_write_nusd=2 * 10**9, reasoning_nusd=2 * 10**10, image_nusd=10**6)
MODELS = (
    "gpt-4.1",
    "openrouter/openai/gpt-4.1-mini",
    "claude-sonnet-4.5",
    "gemini-2.5-flash",
    "nobody-knows-it",
)


def bound_of(body: dict[str, Any], endpoint: str = "chat/completions") -> UpperBound:
    return upper_bound(
        endpoint,
        body,
        model=str(body.get("model", "")),
        body_bytes=len(json.dumps(body).encode()),
        default_output=DEFAULT_OUTPUT,
    )


# What callers write for a number, and what some server may take it for (its own bound where that is nothing).
numbers = st.one_of(
    st.integers(0, 10**6),
    st.floats(0, 1e6, allow_nan=False),
    st.integers(0, 10**6).map(str),
    st.sampled_from([None, True, False, -1, "x", "", [], {}, 10**30, 1e300, float("inf")]),
)
texts = st.text(max_size=200)
image = st.builds(lambda url: {"type": "image_url", "image_url": {"url": url, "detail": "high"}}, texts)
untyped = st.builds(lambda url: {"image_url": {"url": url}}, texts)
inline = st.builds(
    lambda data: {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
    st.integers(0, 4000).map("A".__mul__),
)
anthropic_image = st.builds(
    lambda data: {"type": "image", "source": {"type": "base64", "data": data}},
    st.integers(0, 4000).map("A".__mul__),
)
file = st.sampled_from(
    [
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJD"}},
        {"type": "input_file", "file_url": "https://example.org/a.pdf"},
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
        {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}},
        {"type": "something_new", "id": "x"},
    ]
)
sound = st.builds(
    lambda data: {"type": "input_audio", "input_audio": {"format": "mp3", "data": data}},
    st.integers(100, 4000).map("A".__mul__),
)
text_part = st.builds(lambda text: {"type": "text", "text": text}, texts)
part = st.one_of(text_part, text_part, image, untyped, inline, anthropic_image, sound, file)
message = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["user", "system", "assistant"]),
    st.one_of(texts, st.lists(part, max_size=4)),
)
bodies = st.fixed_dictionaries(
    {"model": st.sampled_from(MODELS), "messages": st.lists(message, min_size=1, max_size=3)},
    optional={
        "max_tokens": numbers,
        "max_completion_tokens": numbers,
        "max_output_tokens": numbers,
        "Max_Tokens": numbers,
        "thinking": st.builds(lambda budget: {"type": "enabled", "budget_tokens": budget}, numbers),
        "n": numbers,
        "best_of": numbers,
        "prompt": st.one_of(texts, st.lists(texts, max_size=5), st.lists(st.integers(0, 10**5), max_size=5)),
        "tools": st.just([{"type": "function", "function": {"name": "f"}}]),
        "service_tier": st.sampled_from([None, "auto", "default", "flex", "priority"]),
        "prediction": st.builds(lambda text: {"type": "content", "content": text}, texts),
    },
)


def _taken_for(value: object, otherwise: int) -> int:
    """What a lenient server takes a number for."""
    if isinstance(value, bool) or value is None:
        return otherwise
    try:
        number = float(str(value))
    except ValueError:
        return otherwise
    return round(min(MOST_TOKENS, number)) or otherwise if number >= 0 else otherwise


def _parts(body: dict[str, Any], kinds: tuple[str, ...]) -> int:
    contents = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    return sum(part.get("type", "image") in kinds for content in contents for part in content)


def _written_each(sent: dict[str, Any], draw: Any) -> int:
    """Of what is sent: a server knows both bounds of a chat, or only the old one, and honours any that it knows."""
    facts = facts_of(sent["model"])
    known = ["max_tokens"]
    if facts.heeds_new_bound or draw(st.booleans()):
        known.append("max_completion_tokens")
    given = [each for name in known if (each := _taken_for(sent.get(name), 0))]
    assert given or facts.most_output is not None, "nothing bounds the output"
    each = draw(st.sampled_from(given)) if given else MOST_TOKENS
    thinking = sent.get("thinking")
    budget = _taken_for(thinking.get("budget_tokens"), 0) if thinking else 0
    if given and budget >= each and draw(st.booleans()):
        each += budget  # beside the answer, where it would leave none of it
    return each if facts.most_output is None else min(each, facts.most_output + (budget if given else 0))


def bill(body: dict[str, Any], sent: dict[str, Any], draw: Any) -> Usage:
    """What a provider may bill for `sent`, which `body` became: it honours whichever it likes, and reads everything."""
    facts = facts_of(body["model"])
    each = _written_each(sent, draw)
    choices = max(1, _taken_for(body.get("n"), 1), _taken_for(body.get("best_of"), 1))
    prompts = body.get("prompt")
    several = isinstance(prompts, list) and any(isinstance(each, str) for each in prompts)
    written = min(
        MOST_TOKENS, each * choices * (len(prompts) if several and isinstance(prompts, list) else 1)
    )
    images = _parts(body, ("image_url", "image"))
    kept = json.loads(json.dumps(body))
    for message in kept["messages"]:
        if isinstance(message["content"], list):
            message["content"] = [
                part for part in message["content"] if "image" not in part.get("type", "image")
            ]
    read = len(json.dumps(kept, ensure_ascii=False).encode("utf-8", "replace")) + images * facts.image
    files = _parts(body, ("file", "input_file", "document", "video_url", "something_new"))
    if files:
        read = max(read, facts.context or 0)
    read = draw(st.integers(0, read))
    return Usage(
        read,
        draw(st.integers(0, written)),
        cache_write_tokens=draw(st.integers(0, read)),
        reasoning_tokens=draw(st.integers(0, written)),
        images=images,
    )


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(bodies, st.data())
def test_no_bill_is_above_the_bound(body: dict[str, Any], data: st.DataObject) -> None:
    """Unless it is said that there is none."""
    bound = bound_of(body)
    assume(bound.unbounded is None)
    sent = body
    if bound.output_to_send is not None:
        sent = body | bounded_fields("chat/completions", body, bound.output_to_send, is_openai=False)
        assert bound_of(sent).output_to_send is None, "it is sent once"
    assert PRICE.cost_nusd(bill(body, sent, data.draw)) <= PRICE.upper_bound_nusd(bound_of(sent).usage)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"web_search_options": {}}, None),
        ({"web_search_options": {"search_context_size": "high"}}, "web_search_options"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"models": ["a", "b"]}, "models"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "file"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "url": "https://x.test/a"}]}]},
            "input_audio",
        ),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "audio"),
        ({"previous_response_id": "r"}, "previous_response_id"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, None),
    ],
)
def test_what_has_no_bound_is_named(more: dict[str, Any], param: str | None) -> None:
    """So that it can be refused where a hard budget holds. The model here is one that nobody knows."""
    found = bound_of({"model": "nobody-knows-it", "messages": []} | more).unbounded
    assert (None if found is None else found.param) == param


def test_a_known_context_window_bounds_what_is_referred_to() -> None:
    """Whatever the file holds, the model reads no more."""
    content = [{"type": "file", "file": {"file_id": "f"}}]
    found = bound_of({"model": "gpt-4.1", "messages": [{"role": "user", "content": content}]})
    assert found.unbounded is None
    assert found.usage.input_tokens == 1_048_576


def test_a_text_beside_an_image_is_counted() -> None:
    """Only the image's own data is not; nor does a text that begins as one pass for one."""
    hidden = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}, "note": "w " * 5000}
    as_text = "data:" + "lorem ipsum dolor " * 1000
    for content in ([hidden], as_text, [{"type": "text", "text": as_text}]):
        found = bound_of({"model": "m", "messages": [{"role": "user", "content": content}]})
        assert found.usage.input_tokens >= 10_000


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("gpt-4.1", 32_768),
        ("gpt-4.1-mini-2025-04-14", 32_768),
        ("openrouter/openai/gpt-4.1", 32_768),
        ("claude-sonnet-4.5", 65_536),
        ("claude-sonnet-4-5-20250929", 65_536),
        ("gemini-2.5-flash", 65_536),
        ("gpt-4", 8_192),
        ("gpt-4o-mini", 16_384),
        ("gpt-45-turbo", None),
        ("my-own", None),
        ("", None),
    ],
)
def test_a_model_is_known_by_its_name(name: str, output: int | None) -> None:
    """In the ways that providers write it; one that only looks alike is not."""
    assert facts_of(name).most_output == output
