"""From an upstream's HTTP answer to one of our errors. Pure."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ai_client.dialects.limit_headers import (
    duration_s,
    rate_limits,
    retry_after_s,
    spent_limit_s,
    told_wall_s,
)
from ai_client.errors import (
    AIClientError,
    AuthenticationError,
    BadRequestError,
    ConnectError,
    ModelNotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UpstreamError,
    redact,
)
from ai_client.platform.json_text import read_json

# The text of a proxy's error page helps nobody beyond this.
_LONGEST_MESSAGE = 500
# Members of an error that say how many seconds to wait.
_WAITS = ("resets_in_seconds", "retry_after", "retry_after_seconds")
# Members of an error that programs read: of Azure's filter, Groq's failed calls of tools, OpenRouter's providers.
_KNOWN_MEMBERS = frozenset(("innererror", "failed_generation", "metadata"))
_TEXTS = ("message", "detail", "msg", "status_msg", "error_msg", "error_message", "errors", "title")
# Words that stand for a status where an error has none of its own. MiniMax's numbers come as `base_resp_…`.
_STATUS_BY_WORD = {
    status: frozenset(words.split())
    for status, words in {
        429: """rate_limit_exceeded rate_limit_error rate_limited too_many_requests resource_exhausted
            usage_limit_reached insufficient_quota exceeded_current_quota_error quota_exceeded requests tokens
            base_resp_1002 base_resp_1008 base_resp_1039 base_resp_1041 base_resp_2056""",
        529: "overloaded_error overloaded engine_overloaded_error engine_overloaded",
        503: "unavailable service_unavailable serviceunavailableerror service_unavailable_error",
        400: """invalid_request_error bad_request_error invalid_argument badrequesterror context_length_exceeded
            content_filter unsupported_parameter base_resp_2013 base_resp_1026 base_resp_1027""",
        401: "invalid_api_key authentication_error unauthenticated base_resp_1004 base_resp_2049",
        403: "permission_error permission_denied",
        404: "model_not_found not_found_error not_found notfounderror",
    }.items()
}


# Words for "no credit left", which waiting does not mend: of OpenAI, Moonshot, MiniMax, OpenRouter, Zhipu …
_SPENT_WORDS = frozenset(
    word
    for words in (
        "insufficient_quota insufficient_balance insufficient_credits insufficient_funds billing_hard_limit_reached",
        "billing_not_active credit_balance_too_low exceeded_current_quota_error base_resp_1008 1113",
    )
    for word in words.split()
)
_SPENT_TEXT = re.compile(
    r"insufficient[ _-]?(?:quota|balance|credit|fund)|credit balance is too low|exceeded your current quota"
    r"|used all (?:available|your) credits|out of credits|no (?:remaining )?credits|billing (?:hard )?limit"
    r"|余额不足|欠费",
    re.IGNORECASE,
)
# Below 500, but the server's trouble: out of time, Groq's flex capacity, a call that it or its proxy gave up.
_SERVERS_OWN = frozenset((408, 498, 499))
_SPENT_STATUSES = frozenset((400, 403, 429))
_DAILY = re.compile(r"per[ -]?day|daily|\b[RT]PD\b", re.IGNORECASE)
# A day's quota of which nobody says when it begins: looked at again in an hour.
_DAILY_WAIT_S = 3600.0
_TRY_AGAIN = re.compile(
    r"(?:try again|retry(?:ing)?|wait|available)\s(?:again\s)?(?:in|after|for)?\s*(?:about\s)?"
    r"((?:\d+(?:\.\d+)?\s?(?:ms|milliseconds?|h|hours?|m|minutes?|s|seconds?|d|days?)\s?)+)\b",
    re.IGNORECASE,
)
_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s?(ms|mil|h|m|s|d)[a-z]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class UpstreamMessage:
    """The `error` object of an OpenAI answer; for any other body, its text as the message."""

    message: str
    code: str | None = None
    type: str | None = None
    param: str | None = None
    #: How long to wait, as text: Google's `RetryInfo`, others' members of the error.
    retry_delay: str | None = None
    #: What programs read of it beside these: see `_KNOWN_MEMBERS`.
    members: Mapping[str, Any] | None = field(default=None, compare=False)


def parse_error_body(body: bytes) -> UpstreamMessage:
    """Never raises: an upstream in trouble may answer with anything."""
    try:
        value = read_json(body)
    except ValueError:
        return UpstreamMessage(_one_line(body.decode("utf-8", "replace")))
    return read_error(value)


def read_error(value: object) -> UpstreamMessage:
    """What the parsed body of an error says, in any of the shapes that were seen."""
    if isinstance(value, list) and value:  # Gemini wraps its errors in a list
        value = value[0]
    error = (value.get("error") or value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return UpstreamMessage(_one_line(_spoken(error)))
    said = next((error[name] for name in _TEXTS if error.get(name)), "")
    beside = value if isinstance(value, dict) else error
    codes = (error.get("code"), error.get("status_code"), error.get("http_code"), beside.get("code"))
    code = _text(next(filter(None, codes), None))
    kind = _text(error.get("type")) or _text(error.get("status"))
    return UpstreamMessage(
        _one_line(_spoken(said)),
        code,
        kind,
        _text(error.get("param")),
        _retry_delay(error),
        _known_members(error),
    )


def _known_members(error: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Without what looks like a key."""
    if _KNOWN_MEMBERS.isdisjoint(error):
        return None
    text = json.dumps({name: error[name] for name in sorted(_KNOWN_MEMBERS & error.keys())})
    members: Mapping[str, Any] = json.loads(redact(text))
    return members


def _retry_delay(error: Mapping[str, Any]) -> str | None:
    for name in _WAITS:
        if isinstance(told := error.get(name), int | float | str) and told:
            return _text(told)
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and detail.get("retryDelay"):
            return _text(detail["retryDelay"])
    return None


def asked_wait_s(headers: Mapping[str, str], said: UpstreamMessage, *, wall_s: float) -> float | None:
    """How long the upstream asks to wait: in its headers, in the error's details, or in its text."""
    asked_s = retry_after_s(headers, wall_s=wall_s)
    if asked_s is None:
        asked_s = duration_s(said.retry_delay)
    if asked_s is None and (told := _TRY_AGAIN.search(said.message)) is not None:
        parts = [
            f"{number}{'ms' if unit.lower() == 'mil' else unit.lower()}"
            for number, unit in _UNIT.findall(told[1])
        ]
        asked_s = duration_s("".join(parts))
    return asked_s


def is_quota_spent(status: int, said: UpstreamMessage, *, wait_s: float | None) -> bool:
    """Whether the account has no credit left. Google says "exceeded your current quota" of a minute's quota, too."""
    if status == 402 or _SPENT_WORDS & {said.code, said.type}:
        return True
    return status in _SPENT_STATUSES and wait_s is None and _SPENT_TEXT.search(said.message) is not None


def _spoken(said: object) -> str:
    """A text; of FastAPI's list of what is wrong with a request, its messages."""
    if isinstance(said, list):
        return "; ".join(_spoken(each) for each in said)
    if isinstance(said, dict):
        text = next((said[name] for name in (*_TEXTS, "msg") if said.get(name)), None)
        return str(said) if text is None else _spoken(text)
    return "" if said is None else str(said)


def status_of(said: UpstreamMessage) -> int:
    """The HTTP status that an error which came with a 200 should have had: by its code, its type, its text."""
    for word in (said.code, said.type):
        if word and word.isdigit() and 400 <= int(word) <= 599:
            return int(word)
    words = {word.lower() for word in (said.code, said.type) if word}
    for status, known in _STATUS_BY_WORD.items():
        if words & known:
            return status
    return 500


def error_within_answer(
    said: UpstreamMessage,
    headers: Mapping[str, str],
    *,
    model: str,
    key_fingerprint: str = "",
    request_id: str = "",
    wall_s: float,
) -> AIClientError:
    """The error that stands for one that came within an answer of 200."""
    status = status_of(said)
    told = replace(
        said, message=f"within an answer of 200: {said.message or said.code or said.type or 'error'}"
    )
    return _error_from(
        status,
        headers,
        told,
        model=model,
        key_fingerprint=key_fingerprint,
        request_id=request_id,
        wall_s=wall_s,
    )


def error_from_answer(  # every fact of the answer may end up in the error
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    model: str,
    available_models: Sequence[str] = (),
    key_fingerprint: str = "",
    request_id: str = "",
    wall_s: float,
) -> AIClientError:
    """The error that stands for an answer with `status` of 300 or more."""
    return _error_from(
        status,
        headers,
        parse_error_body(body),
        model=model,
        available_models=available_models,
        key_fingerprint=key_fingerprint,
        request_id=request_id,
        wall_s=wall_s,
    )


def _error_from(
    status: int,
    headers: Mapping[str, str],
    said: UpstreamMessage,
    *,
    model: str,
    available_models: Sequence[str] = (),
    key_fingerprint: str,
    request_id: str,
    wall_s: float,
) -> AIClientError:
    reason = f"{status} {said.message}".rstrip()
    wall_s = told_wall_s(headers, wall_s=wall_s)
    wait_s = asked_wait_s(headers, said, wall_s=wall_s)
    is_spent = is_quota_spent(status, said, wait_s=wait_s)
    error: AIClientError
    if is_spent:
        error = _rate_limit_error(headers, said, reason, wait_s=None, is_spent=True)
    elif is_model_missing(status, said):
        error = model_not_found(model, available_models)
    elif status == 401:
        error = AuthenticationError("upstream", reason, key_fingerprint=key_fingerprint)
    elif status == 403:
        error = PermissionDeniedError("upstream", reason)
    elif status == 429:
        if wait_s is None:
            wait_s = spent_limit_s(headers, wall_s=wall_s)
        if wait_s is None and _DAILY.search(f"{said.message} {said.code}"):
            wait_s = _DAILY_WAIT_S
        error = _rate_limit_error(headers, said, reason, wait_s=wait_s, is_spent=False)
    elif status == 407:
        error = ConnectError(
            "proxy",
            "asks for a user and a password (407)",
            remedy="Put them into proxy_url: http://USER:PASSWORD@HOST:PORT, with odd characters as %40 and the like.",
        )
    elif status >= 500 or status in _SERVERS_OWN:
        error = ServerError("upstream", reason, status=status, retry_after_s=wait_s)
    elif status >= 400:
        error = BadRequestError("upstream", reason, status=status, param=said.param, upstream_code=said.code)
    else:
        error = _redirected(status, headers.get("location", ""))
    error.request_id = request_id
    error.upstream_members = said.members
    error.may_go_again = headers.get("x-should-retry", "").lower() != "false"
    return error


def _redirected(status: int, location: str) -> UpstreamError:
    """It is not followed: a key goes to the address alone that it was given for."""
    place = _one_line(location.partition("?")[0].partition("#")[0])
    remedy = (
        "Write the address that it leads to into base_url, up to the API's version, or mend the upstream."
    )
    to = f" to {place}" if place else ""
    return UpstreamError("upstream", f"answered with a redirect{to} ({status})", status=status, remedy=remedy)


def refuses_stream_options(error: AIClientError) -> bool:
    """Whether it says that the upstream knows no `stream_options`, or no `include_usage` in them."""
    if not isinstance(error, BadRequestError):
        return False
    names = ("stream_options", "include_usage")
    return error.param in names or any(name in error.reason for name in names)


def is_model_missing(status: int, said: UpstreamMessage) -> bool:
    """A 404 of a proxy's routing says nothing about models, so the answer must name one."""
    if said.code in {"model_not_found", "model_not_available"}:
        return status in {400, 404}
    return status == 404 and (said.param == "model" or "model" in said.message.lower())


def model_not_found(model: str, available: Sequence[str]) -> ModelNotFoundError:
    """With the nearest of the available names, if one is near."""
    near = difflib.get_close_matches(model, available, n=1, cutoff=0.6)
    return ModelNotFoundError(model, available=available, nearest=near[0] if near else None)


def _rate_limit_error(
    headers: Mapping[str, str], said: UpstreamMessage, reason: str, *, wait_s: float | None, is_spent: bool
) -> RateLimitError:
    limits = rate_limits(headers)
    limit = used = None
    if limits is not None:
        spent = [s for s in (limits.requests, limits.tokens) if s.remaining == 0] or [limits.requests]
        limit = spent[0].limit
        if limit is not None and spent[0].remaining is not None:
            used = limit - spent[0].remaining
    return RateLimitError(
        "upstream",
        reason,
        retry_after_s=None if is_spent else wait_s,
        limit=limit,
        used=used,
        quota_spent=is_spent,
        remedy="Add credit to the account; waiting does not help." if is_spent else None,
    )


def _one_line(text: str) -> str:
    """For logs and terminals: nothing in it steers them."""
    line = " ".join(text[: 4 * _LONGEST_MESSAGE].split())
    if not line.isprintable():
        line = "".join(each if each.isprintable() else "?" for each in line)
    return line if len(line) <= _LONGEST_MESSAGE else line[:_LONGEST_MESSAGE] + "…"


def _text(value: object) -> str | None:
    return None if value is None else _one_line(str(value))
