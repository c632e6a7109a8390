"""Every error of this package, as one tree. `except AIClientError` catches all of them.

AIClientError
├── ConfigurationError          the settings are wrong (file, line, section, key)
├── ClientClosedError           the client was closed before or during the call
├── ClientInUseError            another running event loop, or the parent process, has it
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
│   ├── PoolTimeout             no free connection in time (size, in_use)
│   └── HostResourcesError      this host is out of descriptors or memory
├── AdmissionError              refused here; nothing was sent
│   ├── OverloadError           the queue is full (queued, limit)
│   ├── BreakerOpenError        the model's circuit breaker is open (until it is tried again)
│   ├── LeaseEndedError         the lease of a shared quota ended before the write (admitted again by itself)
│   ├── CacheMissError          only-if-cached, and it is not
│   └── LedgerUnavailableError  the ledger can't be written, and a hard budget forbids to go on without it
├── DeadlineExceeded            the request's deadline has passed, or can't be met
├── BudgetExceeded              a budget's hard stop (scope, period, limit_usd, spent_usd)
└── MaxRetriesExceeded          gave up (attempts, last)

Facts are attributes. The text names culprit, reason and remedy, and never holds a key.
"""

from ai_client.errors.answers import (
    AuthenticationError,
    BadRequestError,
    MalformedResponseError,
    ModelNotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
    UpstreamError,
)
from ai_client.errors.base import (
    AIClientError,
    ClientClosedError,
    ClientInUseError,
    ConfigurationError,
    redact,
)
from ai_client.errors.refusals import (
    AdmissionError,
    BreakerOpenError,
    BudgetExceeded,
    CacheMissError,
    DeadlineExceeded,
    LeaseEndedError,
    LedgerUnavailableError,
    MaxRetriesExceeded,
    OverloadError,
)
from ai_client.errors.transport import (
    ConnectError,
    ConnectionLostError,
    HostResourcesError,
    PoolTimeout,
    TLSVerificationError,
    TransportError,
    TransportTimeoutError,
)

__all__ = [
    "AIClientError",
    "AdmissionError",
    "AuthenticationError",
    "BadRequestError",
    "BreakerOpenError",
    "BudgetExceeded",
    "CacheMissError",
    "ClientClosedError",
    "ClientInUseError",
    "ConfigurationError",
    "ConnectError",
    "ConnectionLostError",
    "DeadlineExceeded",
    "HostResourcesError",
    "LeaseEndedError",
    "LedgerUnavailableError",
    "MalformedResponseError",
    "MaxRetriesExceeded",
    "ModelNotFoundError",
    "OverloadError",
    "PermissionDeniedError",
    "PoolTimeout",
    "RateLimitError",
    "RequestTooLargeError",
    "ServerError",
    "TLSVerificationError",
    "TransportError",
    "TransportTimeoutError",
    "UpstreamError",
    "redact",
]
