"""From an upstream's HTTP answer to one of our errors. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
from ai_client.headers import rate_limits, retry_after_s

# The text of a proxy's error page helps nobody beyond this.
_LONGEST_MESSAGE = 500


@dataclass(frozen=True, slots=True)
class UpstreamMessage:
    """The `error` object of an OpenAI answer; for any other body, its text as the message."""

    message: str
    code: str | None = None
    type: str | None = None
    param: str | None = None


def parse_error_body(body: bytes) -> UpstreamMessage:
    """Never raises: an upstream in trouble may answer with anything."""
    try:
        value = json.loads(body)
    except ValueError:
        return UpstreamMessage(_one_line(body.decode("utf-8", "replace")))
    error = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return UpstreamMessage(_one_line(str(error)))
    message = error.get("message") or error.get("detail") or ""
    return UpstreamMessage(
        _one_line(str(message)), _text(error.get("code")), _text(error.get("type")), _text(error.get("param"))
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
    said = parse_error_body(body)
    reason = f"{status} {said.message}".rstrip()
    wait_s = retry_after_s(headers, wall_s=wall_s)
    error: AIClientError
    if is_model_missing(status, said):
        error = model_not_found(model, available_models)
    elif status == 401:
        error = AuthenticationError("upstream", reason, key_fingerprint=key_fingerprint)
    elif status == 403:
        error = PermissionDeniedError("upstream", reason)
    elif status == 429:
        error = _rate_limit_error(headers, said, reason, wait_s=wait_s)
    elif status >= 500 or status == 408:
        error = ServerError("upstream", reason, status=status, retry_after_s=wait_s)
    elif status >= 400:
        error = BadRequestError("upstream", reason, status=status, param=said.param, upstream_code=said.code)
    else:
        error = UpstreamError("upstream", f"answered with a redirect: {status}", status=status)
    error.request_id = request_id
    return error


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
    headers: Mapping[str, str], said: UpstreamMessage, reason: str, *, wait_s: float | None
) -> RateLimitError:
    limits = rate_limits(headers)
    limit = used = None
    if limits is not None:
        spent = [s for s in (limits.requests, limits.tokens) if s.remaining == 0] or [limits.requests]
        limit = spent[0].limit
        if limit is not None and spent[0].remaining is not None:
            used = limit - spent[0].remaining
    quota_spent = "insufficient_quota" in {said.code, said.type}
    return RateLimitError(
        "upstream",
        reason,
        retry_after_s=wait_s,
        limit=limit,
        used=used,
        quota_spent=quota_spent,
        remedy="Add credit to the account; waiting does not help." if quota_spent else None,
    )


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_MESSAGE else line[:_LONGEST_MESSAGE] + "…"


def _text(value: object) -> str | None:
    return None if value is None else str(value)
