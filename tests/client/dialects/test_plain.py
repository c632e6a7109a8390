"""What most callers send and most providers answer is read by a shorter way, and comes to the same."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ai_client.dialects import body_reader
from ai_client.dialects import upper_bound as bounds
from ai_client.dialects import usage as usages
from ai_client.dialects import verdict as verdicts

_TEXT = st.sampled_from(["", "hello", "ünï", "x" * 300])
_COUNTS = st.sampled_from([0, 1, 7, 200, 4096, 10**9, 10**12, -1, True, 1.5, "12", "many", None])
_MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system"])},
    optional={
        "content": _TEXT | st.sampled_from([None, [{"type": "text", "text": "a"}], [{"type": "image_url"}]]),
        "name": _TEXT,
        "Content": _TEXT,
    },
)
_BODY = st.fixed_dictionaries(
    {"model": st.sampled_from(["gpt-4.1", "deepseek-v3.2", "o3", "unknown", "x:online", "@preset/x"])},
    optional={
        "messages": st.lists(_MESSAGE, max_size=3) | st.sampled_from([None, "text", {}]),
        "max_tokens": _COUNTS,
        "max_completion_tokens": _COUNTS,
        "stream": st.booleans(),
        "stream_options": st.just({"include_usage": True}),
        "temperature": _COUNTS,
        "user": _TEXT,
        "n": _COUNTS,
        "tools": st.just([{"type": "function", "function": {"name": "f"}}]),
        "Max_Tokens": _COUNTS,
        "reasoning_effort": _TEXT,
        "service_tier": _TEXT,
    },
)


@given(_BODY, st.integers(0, 10**6))
@settings(max_examples=400, deadline=None)
def test_a_plain_request_has_the_bound_that_any_would(body: dict[str, Any], size: int) -> None:
    """The short way is taken only where it leads to the same place."""
    given = {"model": str(body["model"]), "body_bytes": size, "default_output": 4096}
    short = bounds.upper_bound("chat/completions", body, **given)  # type: ignore[arg-type]
    assert short == bounds.bound_of_any("chat/completions", body, **given)  # type: ignore[arg-type]


def test_what_most_callers_send_takes_the_short_way() -> None:
    """Else the test above would hold nothing."""
    body = {
        "model": "gpt-4.1",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 5,
        "stream": True,
    }
    assert bounds._is_plain(body)
    assert (
        usages._read_plain({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}, None) is not None
    )


_USAGE = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": _COUNTS,
        "completion_tokens": _COUNTS,
        "total_tokens": _COUNTS,
        "prompt_tokens_details": st.none()
        | st.dictionaries(st.sampled_from(["cached_tokens", "audio_tokens", "cache_write_tokens"]), _COUNTS),
        "completion_tokens_details": st.none()
        | st.dictionaries(st.sampled_from(["reasoning_tokens", "audio_tokens", "image_tokens"]), _COUNTS),
        "cost": _COUNTS,
        "prompt_cache_hit_tokens": _COUNTS,
    },
)


@st.composite
def _summed(draw: st.DrawFn) -> dict[str, Any]:
    """Counts whose sum is told rightly, mostly."""
    value = draw(_USAGE)
    read, written = draw(st.integers(0, 50)), draw(st.integers(0, 50))
    return value | {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


@given(_USAGE | _summed(), st.sampled_from([None, "", "flex", 3]))
@settings(max_examples=400, deadline=None)
def test_a_plain_usage_comes_to_what_any_would(value: dict[str, Any], tier: object) -> None:
    """Token by token."""
    try:
        expected = usages.read_any(value, tier)
    except usages._SenselessError:
        expected = None
    assert usages.usage_from_json(value, tier=tier) == expected


_TOLD = st.sampled_from([None, "", {}, [], False, {"message": "no"}, {"code": 0}, "no such model", 0, "ok"])
_CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "finish_reason": st.sampled_from([None, "", "stop", "error", "Network_Error", 3]),
        "native_finish_reason": st.sampled_from(["stop", "network_error", None, 3]),
        "error": _TOLD,
        "message": st.sampled_from(
            [
                {"role": "assistant", "content": "hello"},
                {"role": "assistant", "content": None},
                {},
                None,
                "hello",
            ]
        ),
    },
)
_ANSWER = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(_CHOICE | st.sampled_from([None, "text"]), max_size=2)
        | st.sampled_from([None, "x"]),
        "object": st.sampled_from(["chat.completion", "error", "response", None]),
        "status": st.sampled_from(["completed", "failed", 500]),
        "type": st.sampled_from(["error", "message", None, 7]),
        "error": _TOLD,
        "base_resp": st.sampled_from([None, {"status_code": 0}, {"status_code": 1004, "status_msg": "no"}]),
        "x_groq": st.sampled_from([None, {"id": "x"}, {"error": "over"}]),
        "detail": _TOLD,
        "message": _TOLD,
        "usage": st.just({"prompt_tokens": 1}),
    },
)


@given(_ANSWER)
@settings(max_examples=600, deadline=None)
def test_an_answer_without_telltales_is_judged_as_any_would_be(answer: dict[str, Any]) -> None:
    """An error is found wherever it stands, by the short way too."""
    found = [said for said in verdicts._told(answer) if said is not None]
    assert verdicts.fault_of(answer) == (found[0] if found else None)


@st.composite
def _nearly_plain(draw: st.DrawFn) -> dict[str, Any]:
    """A chat's answer that ended well, but for a little here and there."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    answer = {"id": "x", "object": "chat.completion", "choices": [choice | draw(_CHOICE)]}
    changes = draw(_ANSWER)
    names = draw(st.sets(st.sampled_from(sorted(changes)), max_size=2)) if changes else ()
    return answer | {name: changes[name] for name in names}


@given(_ANSWER | _nearly_plain())
@settings(max_examples=600, deadline=None)
def test_a_plain_answer_gets_the_verdict_that_any_would(answer: dict[str, Any]) -> None:
    """Fault, lack and usage."""
    whole = body_reader.judged_whole(answer, "chat/completions")
    assert body_reader._judged(answer, "chat/completions") == whole


def test_what_most_providers_answer_takes_the_short_way() -> None:
    """Else the test above would hold nothing."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    assert verdicts.is_plain_answer({"id": "x", "object": "chat.completion", "choices": [choice]})
