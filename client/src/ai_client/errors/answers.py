"""What an upstream answered, where that is no answer to the request."""

from __future__ import annotations

from collections.abc import Sequence

from ai_client.errors.base import AIClientError


class BadRequestError(AIClientError):
    """The upstream refused what the caller sent (`status`, `param`). Remedy: correct the request."""

    http_status = 400
    error_type = "invalid_request_error"
    code = "bad_request"
    default_remedy = "Correct the request; sending it again unchanged fails again."

    def __init__(
        self,
        culprit: str,
        reason: str,
        *,
        remedy: str | None = None,
        request_id: str = "",
        status: int = 400,
        param: str | None = None,
        upstream_code: str | None = None,
    ) -> None:
        super().__init__(culprit, reason, remedy=remedy, request_id=request_id)
        self.status = status
        self.param = param
        self.upstream_code = upstream_code


class RequestTooLargeError(BadRequestError):
    """The request needs more tokens than `limit_tokens` a minute. Remedy: lower max_tokens or split it."""

    http_status = 413
    code = "request_too_large"
    default_remedy = "Lower max_tokens, shorten the input, or raise the token limit."

    def __init__(self, culprit: str, *, tokens: int, limit_tokens: int) -> None:
        reason = f"needs up to {tokens} tokens, but the limit is {limit_tokens} a minute"
        super().__init__(culprit, reason, status=413)
        self.tokens = tokens
        self.limit_tokens = limit_tokens


class AuthenticationError(AIClientError):
    """401: the key with `key_fingerprint` is refused. Never retried with the same key. Remedy: rotate it."""

    http_status = 401
    error_type = "authentication_error"
    code = "invalid_api_key"
    default_remedy = "Set a valid key and reload; the same key is not tried again."

    def __init__(
        self,
        culprit: str,
        reason: str,
        *,
        remedy: str | None = None,
        request_id: str = "",
        key_fingerprint: str = "",
    ) -> None:
        super().__init__(culprit, reason, remedy=remedy, request_id=request_id)
        self.key_fingerprint = key_fingerprint


class PermissionDeniedError(AIClientError):
    """403: the key is valid, but may not do this. Remedy: ask for the permission; never retried."""

    http_status = 403
    error_type = "permission_error"
    code = "permission_denied"
    default_remedy = "Use a key or model that this account is allowed to use."


class ModelNotFoundError(AIClientError):
    """No such model. `available` are the known names, `nearest` the likeliest meant. Remedy: use one."""

    http_status = 404
    error_type = "invalid_request_error"
    code = "model_not_found"

    def __init__(
        self, model: str, *, available: Sequence[str] = (), nearest: str | None = None, request_id: str = ""
    ) -> None:
        if nearest:
            remedy = f"Did you mean {nearest}? Available: {', '.join(available)}."
        elif available:
            remedy = f"Use one of: {', '.join(available)}."
        else:
            remedy = "Ask the upstream for its models (`models()`) and use one of those."
        super().__init__(f"model {model!r}", "does not exist", remedy=remedy, request_id=request_id)
        self.model = model
        self.available = tuple(available)
        self.nearest = nearest


class RateLimitError(AIClientError):
    """429. `retry_after_s` as the upstream asked, `limit` and `used` where it told.

    `quota_spent`: the account has no credit left, so that waiting does not help.
    Remedy: wait, lower the rate, or raise the account's limit.
    """

    http_status = 429
    error_type = "rate_limit_error"
    code = "rate_limit_exceeded"
    default_remedy = "Send less, wait, or raise the account's limit."

    def __init__(
        self,
        culprit: str,
        reason: str,
        *,
        remedy: str | None = None,
        request_id: str = "",
        retry_after_s: float | None = None,
        limit: int | None = None,
        used: int | None = None,
        quota_spent: bool = False,
    ) -> None:
        super().__init__(culprit, reason, remedy=remedy, request_id=request_id)
        self.retry_after_s = retry_after_s
        self.limit = limit
        self.used = used
        self.quota_spent = quota_spent


class UpstreamError(AIClientError):
    """The upstream answered `status`, but no usable answer. Remedy: try later; it is retried already."""

    http_status = 502
    code = "upstream_error"
    default_remedy = "Try again later; see the upstream's status."

    def __init__(
        self,
        culprit: str,
        reason: str,
        *,
        remedy: str | None = None,
        request_id: str = "",
        status: int = 502,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(culprit, reason, remedy=remedy, request_id=request_id)
        self.status = status
        self.retry_after_s = retry_after_s


class ServerError(UpstreamError):
    """5xx or 408. Remedy: try later."""

    code = "upstream_server_error"


class MalformedResponseError(UpstreamError):
    """The answer is not JSON, or not whole. It may have been billed. Remedy: try again if that is safe."""

    code = "upstream_malformed_response"
    default_remedy = "Try again if sending it twice is safe (resend_unsafe)."
