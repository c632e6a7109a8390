"""Which models are asked when the first one can't answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from ai_client.calls.targets import Target
from ai_client.contract.keys import ApiKey
from ai_client.errors import (
    AIClientError,
    BreakerOpenError,
    HostResourcesError,
    MaxRetriesExceeded,
    ModelNotFoundError,
    RateLimitError,
    TLSVerificationError,
    TransportError,
    UpstreamError,
)

#: Retries on a model that has another behind it: a caller is better served by the next one than by waiting.
RETRIES_BEFORE_FALLBACK = 1


class Course(Struct):
    """How far a call has come: which of its models is asked, with which key, and how often it was asked again."""

    targets: Sequence[Target]
    key: ApiKey
    #: How many of the targets, the first ones, have the asked model.
    asked: int
    index: int = 0
    retry: int = 0
    #: What falling back took from the retry budget.
    fallbacks_paid: int = 0

    @property
    def is_last(self) -> bool:
        """Whether no other model is behind this one."""
        return self.index == len(self.targets) - 1

    def leaves_asked_model(self, following: int) -> bool:
        """Whether going on to the target `following` gives up the model that was asked for."""
        return self.index < self.asked <= following

    def following(self, *, is_account_spent: bool) -> int | None:
        """Which target is next; where the account has no credit, the next that another one pays for."""
        asked = self.targets[self.index].upstream.name
        for index in range(self.index + 1, len(self.targets)):
            if not is_account_spent or self.targets[index].upstream.name != asked:
                return index
        return None


def is_account_spent(error: AIClientError) -> bool:
    """Whether it says that the account has no credit left."""
    cause = error.last if isinstance(error, MaxRetriesExceeded) else error
    return isinstance(cause, RateLimitError) and cause.quota_spent


def candidates(model: str, chain: Sequence[str]) -> tuple[str, ...]:
    """The asked model, then the chain's, each once. Without a model there is nothing to fall back from."""
    if not chain or not model:
        return (model,)
    return tuple(dict.fromkeys((model, *chain)))


def may_fall_back(error: AIClientError, *, leaves_asked_model: bool) -> bool:
    """Whether another model may do better. Never for the caller's own mistakes, nor for the account's.

    A name in the chain that does not exist is passed over; one that the caller gave is its mistake where no upstream
    has it.
    """
    if isinstance(error, MaxRetriesExceeded):
        return may_fall_back(error.last, leaves_asked_model=leaves_asked_model)
    if isinstance(error, RateLimitError):
        return not error.quota_spent
    if isinstance(error, ModelNotFoundError):
        return not leaves_asked_model
    if isinstance(error, TLSVerificationError | HostResourcesError):
        return False
    return isinstance(error, UpstreamError | TransportError | BreakerOpenError)
