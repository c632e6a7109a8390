"""Every error of this package, as one tree. `except AIClientError` catches all of them.

AIClientError
├── ConfigurationError          the settings are wrong (file, line, section, key)
├── ClientClosedError           the client was closed before or during the call
├── BadRequestError             400, 409, 413, 415, 422: the caller's own mistake, never retried
│   └── RequestTooLargeError    needs more tokens than the account has in a whole minute
├── AuthenticationError         401: the key is refused
├── PermissionDeniedError       403: the key may not do this
├── ModelNotFoundError          404: no such model (available, nearest)
├── RateLimitError              429 (retry_after_s, limit, used)
├── UpstreamError               the upstream answered, but not with an answer
│   ├── ServerError             5xx and 408
│   └── MalformedResponseError  not JSON, or cut off
├── TransportError              no (whole) answer came (sent: may it have been executed?)
│   ├── ConnectError            no connection: name, route, refusal, proxy
│   │   └── TLSVerificationError  (verify_reason, tls_version)
│   ├── TransportTimeoutError   a phase took too long (phase, timeout_s)
│   ├── ConnectionLostError     reset or closed before the answer was whole
│   └── PoolTimeout             no free connection in time (size, in_use)
├── AdmissionError              refused here; nothing was sent
│   ├── OverloadError           the queue is full (queued, limit)
│   ├── BreakerOpenError        the model's circuit breaker is open (until it is tried again)
│   ├── CacheMissError          only-if-cached, and it is not
│   └── LedgerUnavailableError  the ledger can't be written, and a hard budget forbids to go on without it
├── DeadlineExceeded            the request's deadline has passed, or can't be met
├── BudgetExceeded              a budget's hard stop (scope, period, limit_usd, spent_usd)
└── MaxRetriesExceeded          gave up (attempts, last)

Facts are attributes. The text names culprit, reason and remedy, and never holds a key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

_SECRETS = re.compile(
    r"(?P<prefix>\b(?:hs_live_|hs_test_|sk-|pk-|rk_|ghp_|AKIA)|\b[Bb]earer\s+|\b[Bb]asic\s+)[A-Za-z0-9._~+/=\-]{4,}"
)
_URL_PASSWORD = re.compile(r"(?P<head>[a-z][a-z0-9+.\-]*://[^/\s:@]*:)[^@/\s]+(?=@)", re.IGNORECASE)


def redact(text: str) -> str:
    """`text` with everything that looks like a key, a bearer token or a URL's password masked.

    What stays of a key is its prefix (`hs_test_…`), which says which kind it is.
    """
    return _URL_PASSWORD.sub(r"\g<head>…", _SECRETS.sub(r"\g<prefix>…", text))


class AIClientError(Exception):
    """Base of all errors. `culprit`, `reason` and `remedy` are text for people; subclasses add facts."""

    #: What the gateway answers with, and the OpenAI error `type` and `code`.
    http_status: ClassVar[int] = 500
    error_type: ClassVar[str] = "api_error"
    code: ClassVar[str] = "internal_error"
    default_remedy: ClassVar[str] = "Report this with the request id."

    def __init__(self, culprit: str, reason: str, *, remedy: str | None = None, request_id: str = "") -> None:
        self.culprit = redact(culprit)
        self.reason = redact(reason)
        self.remedy = redact(remedy or self.default_remedy)
        self.request_id = request_id
        super().__init__(self.culprit, self.reason, self.remedy)

    def __str__(self) -> str:
        return f"{self.culprit}: {self.reason}. {self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only constructors can't be called from args alone, as pickle would.
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(cls: type[AIClientError], args: tuple[str, ...], facts: dict[str, object]) -> AIClientError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class ConfigurationError(AIClientError):
    """A setting is wrong. Remedy: correct the named key; a running service keeps its old settings."""

    code = "invalid_configuration"
    default_remedy = "Correct the setting and start again."

    def __init__(  # each fact is optional: not every setting comes from a file
        self,
        culprit: str,
        reason: str,
        *,
        remedy: str | None = None,
        file: str = "",
        line: int = 0,
        section: str = "",
        key: str = "",
    ) -> None:
        super().__init__(culprit, reason, remedy=remedy)
        self.file = file
        self.line = line
        self.section = section
        self.key = key


class ClientClosedError(AIClientError):
    """The client was closed. Remedy: make a new client, or close it after the last call."""

    http_status = 503
    code = "client_closed"
    default_remedy = "Make a new client, or close this one after its last call."


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


class TransportError(AIClientError):
    """No whole answer came. `sent`: the request may have reached the upstream and been executed."""

    http_status = 502
    code = "upstream_unreachable"
    default_remedy = "Check the network, the proxy and the upstream's status."

    def __init__(
        self,
        culprit: str,
        reason: str,
        *,
        remedy: str | None = None,
        request_id: str = "",
        sent: bool = False,
    ) -> None:
        super().__init__(culprit, reason, remedy=remedy, request_id=request_id)
        self.sent = sent


class ConnectError(TransportError):
    """No connection: unknown name, no route, refused, or the proxy said no. Nothing was sent."""

    code = "connect_failed"
    default_remedy = "Check base_url, DNS, proxy_url and the firewall."


class TLSVerificationError(ConnectError):
    """The upstream's certificate was not accepted (`verify_reason`, `tls_version`).

    Remedy: set cert_path to the CA bundle that signed it; never turn verification off.
    """

    code = "tls_verification_failed"
    default_remedy = "Set cert_path to the CA bundle that signed it, or renew the certificate."

    def __init__(self, culprit: str, *, verify_reason: str, tls_version: str) -> None:
        super().__init__(culprit, f"TLS certificate not accepted: {verify_reason} ({tls_version})")
        self.verify_reason = verify_reason
        self.tls_version = tls_version


class TransportTimeoutError(TransportError):
    """`phase` ("connect", "headers" or "read") took longer than `timeout_s`.

    Remedy: raise connection_timeout, timeout or read_timeout, or ask for less output.
    """

    http_status = 504
    code = "upstream_timeout"
    default_remedy = "Raise the timeout of this phase, or ask for less output."

    def __init__(self, culprit: str, *, phase: str, timeout_s: float, sent: bool) -> None:
        super().__init__(culprit, f"no {_WAITED_FOR.get(phase, phase)} within {timeout_s:g} s", sent=sent)
        self.phase = phase
        self.timeout_s = timeout_s


_WAITED_FOR = {"connect": "connection", "headers": "response headers", "read": "data"}


class ConnectionLostError(TransportError):
    """The connection was reset or closed before the answer was whole. Remedy: try again if safe."""

    code = "connection_lost"
    default_remedy = "Try again if sending it twice is safe (resend_unsafe)."


class PoolTimeout(TransportError):  # noqa: N818 - a name that users know
    """All `size` connections were busy (`in_use`) for `timeout_s`. Nothing was sent.

    Remedy: raise connection_pool_size, or lower max_concurrent_requests.
    """

    http_status = 503
    code = "pool_timeout"
    default_remedy = "Raise connection_pool_size or lower max_concurrent_requests."

    def __init__(self, culprit: str, *, size: int, in_use: int, timeout_s: float) -> None:
        super().__init__(culprit, f"all {size} connections busy ({in_use} in use) for {timeout_s:g} s")
        self.size = size
        self.in_use = in_use
        self.timeout_s = timeout_s


class AdmissionError(AIClientError):
    """Refused here, before anything was sent or spent."""

    http_status = 503
    code = "not_admitted"
    default_remedy = "Try again later."


class OverloadError(AdmissionError):
    """The queue is full: `queued` of `limit` wait. Remedy: send less, or retry after `retry_after_s`."""

    error_type = "overloaded_error"
    code = "overloaded"
    default_remedy = "Send less at once, or raise the queue's bound."

    def __init__(self, culprit: str, *, queued: int, limit: int, retry_after_s: float | None = None) -> None:
        super().__init__(culprit, f"{queued} requests wait already (the queue's bound is {limit})")
        self.queued = queued
        self.limit = limit
        self.retry_after_s = retry_after_s


class BreakerOpenError(AdmissionError):
    """`model` failed so often that it is left alone for `retry_after_s`. Remedy: wait, or set a fallback."""

    code = "circuit_open"
    default_remedy = "Wait, or name a fallback model."

    def __init__(self, model: str, *, retry_after_s: float) -> None:
        super().__init__(
            f"model {model!r}", f"failed repeatedly and is tried again in {max(0.0, retry_after_s):.1f} s"
        )
        self.model = model
        self.retry_after_s = retry_after_s


class CacheMissError(AdmissionError):
    """`only-if-cached` was asked for and no answer is cached. Remedy: ask without it."""

    http_status = 504
    code = "not_cached"
    default_remedy = "Send the request without only-if-cached."


class LedgerUnavailableError(AdmissionError):
    """The ledger can't be written: without it a hard budget can't be kept. Remedy: that of its file."""

    code = "ledger_unavailable"
    default_remedy = (
        "Mend the ledger's file or disk, or set hard_stop = false in [budget] to go on without it."
    )


class DeadlineExceeded(AIClientError):  # noqa: N818 - a name that users know
    """The deadline of `deadline_s` passed in `phase` ("queue", "retry", "upstream"), or can't be met.

    `earliest_s`: the soonest the request could have been admitted, where it was refused for that.
    Remedy: a longer deadline, a more urgent priority, or less load.
    """

    http_status = 504
    error_type = "timeout_error"
    code = "deadline_exceeded"
    default_remedy = "Give it more time, a more urgent priority, or send less."

    def __init__(
        self,
        culprit: str,
        *,
        deadline_s: float,
        phase: str,
        earliest_s: float | None = None,
        request_id: str = "",
    ) -> None:
        reason = f"its deadline of {deadline_s:g} s passed ({phase})"
        if earliest_s is not None:
            reason = f"can't be admitted before {earliest_s:.1f} s, past its deadline of {deadline_s:g} s"
        super().__init__(culprit, reason, request_id=request_id)
        self.deadline_s = deadline_s
        self.phase = phase
        self.earliest_s = earliest_s


class BudgetExceeded(AIClientError):  # noqa: N818 - a name that users know
    """A budget's hard stop: `scope` ("all" or a tenant), `period` ("day" or "month"), in US dollars.

    Remedy: raise the budget, or wait until `resets_at` (seconds since the epoch).
    """

    http_status = 429
    error_type = "insufficient_quota"
    code = "budget_exceeded"
    default_remedy = "Raise the budget, or wait for the next period."

    def __init__(
        self,
        culprit: str,
        *,
        scope: str,
        period: str,
        limit_usd: float,
        spent_usd: float,
        asked_usd: float,
        resets_at: float | None = None,
    ) -> None:
        super().__init__(
            culprit,
            f"the {period}'s budget of {scope} is ${limit_usd:.4f}, "
            f"${spent_usd:.4f} are spent or reserved and this may cost ${asked_usd:.4f}",
        )
        self.scope = scope
        self.period = period
        self.limit_usd = limit_usd
        self.spent_usd = spent_usd
        self.asked_usd = asked_usd
        self.resets_at = resets_at


class MaxRetriesExceeded(AIClientError):  # noqa: N818 - a name that users know
    """Gave up after `attempts`; `last` is the last failure (also `__cause__`), `budget_spent` if the
    retry budget, not the count, ended it. Remedy: that of the last failure."""

    http_status = 502
    code = "max_retries_exceeded"

    def __init__(
        self,
        culprit: str,
        *,
        attempts: int,
        last: AIClientError,
        budget_spent: bool = False,
        request_id: str = "",
    ) -> None:
        why = "the retry budget is spent" if budget_spent else "no attempt is left"
        reason = f"failed {attempts} times and {why}; last: {last.culprit}: {last.reason}"
        super().__init__(culprit, reason, remedy=last.remedy, request_id=request_id)
        self.attempts = attempts
        self.last = last
        self.budget_spent = budget_spent

    @property
    def retry_after_s(self) -> float | None:
        """What the last failure asked for, if it did."""
        value = getattr(self.last, "retry_after_s", None)
        return value if isinstance(value, float) else None
