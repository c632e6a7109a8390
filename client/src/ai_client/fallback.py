"""Which models are asked when the first one can't answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ai_client.errors import (
    AIClientError,
    BreakerOpenError,
    MaxRetriesExceeded,
    ModelNotFoundError,
    RateLimitError,
    TLSVerificationError,
    TransportError,
    UpstreamError,
)

#: Retries on a model that has another behind it: a caller is better served by the next one than by waiting.
RETRIES_BEFORE_FALLBACK = 1


def candidates(model: str, chain: Sequence[str]) -> tuple[str, ...]:
    """The asked model, then the chain's, each once. Without a model there is nothing to fall back from."""
    if not chain or not model:
        return (model,)
    return tuple(dict.fromkeys((model, *chain)))


def may_fall_back(error: AIClientError, *, is_asked_model: bool) -> bool:
    """Whether another model may do better. Never for the caller's own mistakes, nor for the account's.

    A name in the chain that does not exist is passed over; one that the caller gave is its mistake.
    """
    if isinstance(error, MaxRetriesExceeded):
        return may_fall_back(error.last, is_asked_model=is_asked_model)
    if isinstance(error, RateLimitError):
        return not error.quota_spent
    if isinstance(error, ModelNotFoundError):
        return not is_asked_model
    if isinstance(error, TLSVerificationError):
        return False
    return isinstance(error, UpstreamError | TransportError | BreakerOpenError)
