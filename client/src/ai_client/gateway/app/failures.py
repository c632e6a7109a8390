"""Errors as OpenAI's clients know them: status, headers and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ai_client.contract.apis import Family
from ai_client.errors import (
    AdmissionError,
    AIClientError,
    BadRequestError,
    ClientClosedError,
    MaxRetriesExceeded,
    RateLimitError,
)
from ai_client.gateway.app.callers import CallerRefusal
from ai_client.gateway.http.asgi import JSON_TYPE, Headers, Send, error_body, respond

# The OpenAI SDK retries by itself unless told not to; retries are this service's work alone.
DRAINING = "draining"
#: The upstream's account has no credit left, in whatever words it says so.
QUOTA_SPENT = "insufficient_quota"
# The error types of Anthropic's API (docs: "Errors"), by status.
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
NO_RETRY = (b"x-should-retry", b"false")


@dataclass(frozen=True, slots=True)
class Failure:
    """An error answer. `retry_after_s` becomes both `Retry-After` and `retry-after-ms`."""

    status: int
    kind: str
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    may_retry: bool = False
    request_id: str = ""
    #: The methods that the path has, where this is none of them.
    allow: tuple[str, ...] = ()
    #: Members of the upstream's own error that callers know.
    more: Mapping[str, Any] = field(default_factory=dict)

    def body(self, family: Family = Family.OPENAI) -> bytes:
        """The JSON text, as callers of that API know it."""
        if family is Family.ANTHROPIC:
            said = {"type": ANTHROPIC_TYPES.get(self.status, "api_error"), "message": self.message}
            return json.dumps(
                {"type": "error", "error": said, "request_id": self.request_id or None}
            ).encode()
        return error_body(
            kind=self.kind, code=self.code, message=self.message, param=self.param, more=self.more
        )

    def headers(self) -> Headers:
        """The headers, content type included."""
        headers: Headers = [JSON_TYPE]
        if self.retry_after_s is not None:
            seconds = max(0.0, self.retry_after_s)
            headers.append((b"retry-after", str(math.ceil(seconds)).encode()))
            headers.append((b"retry-after-ms", str(math.ceil(seconds * 1000)).encode()))
        if self.code == DRAINING:
            headers.append((b"connection", b"close"))
        if not self.may_retry:
            headers.append(NO_RETRY)
        if self.allow:
            headers.append((b"allow", ", ".join(self.allow).encode()))
        if self.request_id:
            headers.append((b"x-request-id", self.request_id.encode()))
        return headers

    async def send(self, send: Send, family: Family = Family.OPENAI) -> None:
        """Answer with it."""
        await respond(send, self.status, self.headers(), self.body(family))

    def event(self, family: Family = Family.OPENAI) -> bytes:
        """It as an event of a stream that has begun already, where no status can be sent any more."""
        name, body = b"", self.body(family)
        if family is Family.ANTHROPIC:
            name = b"event: error\n"
        elif family is Family.RESPONSES:
            name, body = b"event: response.failed\n", self._failed_response()
        return name + b"data: " + body + b"\n\n"

    def _failed_response(self) -> bytes:
        """Codex and others go by the type, which ends a stream; OpenAI's SDKs raise where there is an `error`."""
        error = json.loads(self.body())["error"]
        response = {
            "id": self.request_id,
            "object": "response",
            "status": "failed",
            "output": [],
            "error": {"code": self.code, "message": self.message},
        }
        event = {"type": "response.failed", "sequence_number": 0, "response": response, "error": error}
        return json.dumps(event).encode()


def invalid(
    message: str, *, param: str | None = None, code: str = "bad_request", status: int = 400
) -> Failure:
    """The caller's own mistake."""
    return Failure(status, "invalid_request_error", code, message, param)


def not_allowed(method: str, path: str, *, allow: Iterable[str]) -> Failure:
    """A path that is known, by a method that it does not have (RFC 9110 15.5.6)."""
    failure = invalid(f"{path} has no method {method}.", code="method_not_allowed", status=405)
    methods = set(allow)
    return replace(failure, allow=tuple(sorted(methods | {"HEAD"} if "GET" in methods else methods)))


def from_refusal(refusal: CallerRefusal) -> Failure:
    """A caller that is sent away."""
    kinds = {401: "authentication_error", 403: "permission_error"}
    kind = kinds.get(refusal.status, "invalid_request_error")
    param = "x-ai-tenant" if refusal.code == "invalid_header" else None
    return Failure(refusal.status, kind, refusal.code, refusal.message, param)


def draining(retry_after_s: float) -> Failure:
    """The service is being stopped or replaced."""
    message = "The service is restarting; send the request again."
    return Failure(503, "overloaded_error", DRAINING, message, None, retry_after_s, may_retry=True)


def from_error(error: AIClientError) -> Failure:
    """The HTTP status, code and text that a caller gets for an error of the client."""
    status, param, code = error.http_status, None, error.code
    cause = error.last if isinstance(error, MaxRetriesExceeded) else error
    if isinstance(cause, BadRequestError):
        status, param, code = cause.status, cause.param, cause.upstream_code or cause.code
    elif isinstance(cause, AIClientError):
        status, code = cause.http_status, cause.code
    if isinstance(cause, RateLimitError) and cause.quota_spent:
        code = QUOTA_SPENT
    retry_after_s = getattr(cause, "retry_after_s", None)
    may_retry = isinstance(error, AdmissionError | ClientClosedError)
    failure = Failure(
        status, error.error_type, code, str(error), param, retry_after_s, may_retry, error.request_id
    )
    members = cause.upstream_members
    return failure if members is None else replace(failure, more=members)
