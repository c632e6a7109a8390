"""Errors as OpenAI's clients know them: status, headers and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from ai_client.errors import (
    AdmissionError,
    AIClientError,
    BadRequestError,
    ClientClosedError,
    MaxRetriesExceeded,
)
from ai_client.gateway.asgi import JSON_TYPE, Headers, Send, respond
from ai_client.gateway.callers import Refusal

# The OpenAI SDK retries by itself unless told not to; retries are this service's work alone.
DRAINING = "draining"
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

    def body(self) -> bytes:
        """The JSON text."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()

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
        if self.request_id:
            headers.append((b"x-request-id", self.request_id.encode()))
        return headers

    async def send(self, send: Send) -> None:
        """Answer with it."""
        await respond(send, self.status, self.headers(), self.body())

    def event(self) -> bytes:
        """It as an event of a stream that has begun already, where no status can be sent any more."""
        return b"data: " + self.body() + b"\n\n"


def invalid(
    message: str, *, param: str | None = None, code: str = "bad_request", status: int = 400
) -> Failure:
    """The caller's own mistake."""
    return Failure(status, "invalid_request_error", code, message, param)


def from_refusal(refusal: Refusal) -> Failure:
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
    """What a failed call becomes."""
    status, param, code = error.http_status, None, error.code
    cause = error.last if isinstance(error, MaxRetriesExceeded) else error
    if isinstance(cause, BadRequestError):
        status, param, code = cause.status, cause.param, cause.upstream_code or cause.code
    elif isinstance(cause, AIClientError):
        status, code = cause.http_status, cause.code
    retry_after_s = getattr(cause, "retry_after_s", None)
    may_retry = isinstance(error, AdmissionError | ClientClosedError)
    return Failure(
        status, error.error_type, code, str(error), param, retry_after_s, may_retry, error.request_id
    )
