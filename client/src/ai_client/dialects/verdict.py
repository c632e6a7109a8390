"""The one judge of what is an answer and what is an error that came with a 200, for bodies and for events. Pure.

An error is told as such, wherever it stands and whatever stands beside it. An answer has to hold what was asked for:
a chat without choices is none, however well it is formed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ai_client.dialects.error_answers import UpstreamMessage, read_error
from ai_client.platform.json_text import word_of

CHOICE_ENDPOINTS: Final = frozenset(("chat/completions", "completions"))
#: What the events of a stream are called that say it came to its end, where they have a `type`.
END_TYPES: Final = frozenset(("message_stop", "response.completed", "response.incomplete"))
#: Why an answer ended that did not come to its end: OpenRouter's and others', Zhipu's, DeepSeek's, vLLM's.
BROKEN_OFF: Final = frozenset(
    (
        "error",
        "network_error",
        "insufficient_system_resource",
        "abort",
        "internal_error",
        "internal_server_error",
        "server_error",
        "engine_error",
        "failed",
        "timeout",
    )
)
_ERROR_TYPES: Final = frozenset(("error", "response.failed", "response.error"))
# The members that tell of errors; few answers have any of them.
_TELLTALES: Final = frozenset(("error", "type", "base_resp", "x_groq", "status"))
#: What an answer of OpenAI's own form holds, and how it may end.
_PLAIN_MEMBERS: Final = frozenset(
    ("id", "object", "created", "model", "choices", "usage", "service_tier", "system_fingerprint")
)
_PLAIN_ENDS: Final = ("stop", "length", "tool_calls", "function_call", "content_filter")
_NO_ERROR: Final = frozenset(("0", "200", "ok", "success"))
_ANSWER_MEMBERS: Final = ("choices", "data", "output", "content", "results", "embeddings", "models", "usage")
#: What the answers of other APIs have to hold.
_LISTS: Final[Mapping[str, str]] = {
    "responses": "output",
    "messages": "content",
    "images/generations": "data",
    "images/edits": "data",
    "images/variations": "data",
    "moderations": "results",
}
# A picture that was refused is none, and what nobody judged is not harmless.
_NEVER_EMPTY: Final = frozenset(_LISTS) - {"responses", "messages"}
_BESIDE_PICTURES: Final = frozenset(("revised_prompt", "error", "index", "object", "created"))
#: A response that goes on in the background.
UNDER_WAY: Final = ("queued", "in_progress")
_EMBEDDING_MEMBERS: Final = ("data", "embeddings", "embedding", "choices")


def is_plain_answer(value: Mapping[str, Any]) -> bool:
    """Whether it is a chat's answer of the usual form that ended well, in which neither fault nor lack can be.

    A fifth of the work of the rest; a test holds both to the same verdict.
    """
    if not value.keys() <= _PLAIN_MEMBERS or value.get("object") != "chat.completion":
        return False
    choices = value.get("choices")
    if type(choices) is not list or len(choices) != 1 or type(choice := choices[0]) is not dict:
        return False
    return (
        choice.get("finish_reason") in _PLAIN_ENDS
        and type(choice.get("message")) is dict
        and not choice.get("error")
        and "native_finish_reason" not in choice
        # One that says nothing is billed all the same.
        and (("usage" in value and value["usage"] is not None) or bool(choice["message"].get("content")))
    )


def fault_of(value: Mapping[str, Any]) -> UpstreamMessage | None:
    """What an answer or an event says went wrong; None where it says nothing of that kind."""
    if value.keys().isdisjoint(_TELLTALES) and value.get("object") != "error" and value.get("choices"):
        return next((said for said in _told_by_choices(value["choices"]) if said is not None), None)
    return next((said for said in _told(value) if said is not None), None)


def _told(value: Mapping[str, Any]) -> Iterator[UpstreamMessage | None]:
    """Every place that errors were seen in."""
    error = value.get("error")
    if error:  # some write null, false, "" or {} beside a good answer
        yield _meant(error, value)
    if value.get("object") == "error" or word_of(value.get("type")) in _ERROR_TYPES:
        response = value.get("response")
        yield read_error(response if isinstance(response, dict) else value)
    base = value.get("base_resp")  # MiniMax
    if isinstance(base, dict) and str(base.get("status_code") or 0) != "0":
        yield read_error({"message": base.get("status_msg"), "code": f"base_resp_{base['status_code']}"})
    if value.get("object") == "response" and value.get("status") in ("failed", "cancelled"):
        yield UpstreamMessage(f"its response {value['status']}", "server_error")
    groq = value.get("x_groq")
    if isinstance(groq, dict) and groq.get("error"):  # why a stream ends early, behind part of its answer
        yield _meant(groq["error"], groq)
    yield from _told_by_choices(value.get("choices"))
    if not any(value.get(name) for name in _ANSWER_MEMBERS):
        yield _bare(value)


def _meant(error: object, value: Mapping[str, Any]) -> UpstreamMessage | None:
    """None for `{"code": 0, "message": "success"}`, which says that there is none."""
    if isinstance(error, dict):
        code = error.get("code")
        if not any(error.values()) or (not isinstance(code, bool) and str(code).lower() in _NO_ERROR):
            return None
    return read_error(value)


def _told_by_choices(choices: object) -> Iterator[UpstreamMessage | None]:
    """OpenRouter's, and whoever passes it on."""
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            continue
        if choice.get("error"):
            yield read_error(choice)
            continue
        reason = choice.get("finish_reason")
        if "native_finish_reason" in choice and word_of(choice["native_finish_reason"]) in BROKEN_OFF:
            reason = choice["native_finish_reason"]  # it says more, and at times is all that says so
        if isinstance(reason, str) and reason.lower() in BROKEN_OFF:
            yield UpstreamMessage(f"its provider failed (finish_reason: {reason})", "provider_error")


def _bare(value: Mapping[str, Any]) -> UpstreamMessage | None:
    """An object that holds no part of an answer, but a text: FastAPI's `detail`, `errors`, `message`, `msg`."""
    for name in ("detail", "errors", "message", "msg", "error_msg", "error_message"):
        said = value.get(name)
        # A dictionary by the name of message is one that a model wrote (Anthropic's message_start).
        if said and (
            isinstance(said, str) or (isinstance(said, list | dict) and name in ("detail", "errors"))
        ):
            return read_error({"message": said, "code": value.get("code") or value.get("error_code")})
    return None


def missing_of(value: Mapping[str, Any], endpoint: str) -> str | None:
    """What a whole answer lacks to be one, in words; None where it is one."""
    if endpoint in CHOICE_ENDPOINTS:
        choices = value.get("choices")
        if not isinstance(choices, list) or not choices:
            return "holds no choices"
        if not all(_is_choice(choice) for choice in choices):
            return "holds a choice without a message"
        is_billed = "usage" in value and value["usage"]
        if not is_billed and endpoint == "chat/completions" and not any(map(_says_something, choices)):
            return "holds a message without anything in it, and no usage"
    elif endpoint == "embeddings":
        return _missing_vectors(value)
    elif endpoint in _LISTS:
        return _missing_list(value, endpoint)
    return None


def _missing_list(value: Mapping[str, Any], endpoint: str) -> str | None:
    name = _LISTS[endpoint]
    told, is_under_way = value.get(name), value.get("status") in UNDER_WAY
    is_there = isinstance(told, list) and bool(told or endpoint not in _NEVER_EMPTY)
    if not is_there and not is_under_way:
        return f"holds no {name}"
    if name == "data" and isinstance(told, list) and not any(map(_is_picture, told)):
        return "holds no picture"
    return None


def _is_picture(item: object) -> bool:
    """Whether it holds one, and not only what was to be drawn, or why nothing was."""
    return isinstance(item, dict) and any(item[name] for name in item if name not in _BESIDE_PICTURES)


def _is_choice(choice: object) -> bool:
    if not isinstance(choice, dict):
        return False
    message = choice.get("message")
    if isinstance(message, dict):
        # One that ended says so, or holds something.
        return bool(choice.get("finish_reason")) or any(message[name] for name in message if name != "role")
    return isinstance(choice.get("text"), str) or "delta" in choice


def _says_something(choice: Mapping[str, Any]) -> bool:
    """Whether anything came, or it says why nothing did: a model that says nothing is billed for it all the same."""
    message = choice.get("message")
    if choice.get("finish_reason") != "stop" or not isinstance(message, dict):
        return True
    return any(message[name] for name in message if name != "role")


def _missing_vectors(value: Mapping[str, Any]) -> str | None:
    if not any(value.get(name) for name in _EMBEDDING_MEMBERS):
        return "holds no vectors"
    data = value.get("data")
    for each in data if isinstance(data, list) else ():
        if isinstance(each, dict) and "embedding" in each and not each["embedding"]:
            return "holds an empty vector"
    return None
