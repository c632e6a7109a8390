"""Which models are asked when the first one can't answer."""

from __future__ import annotations

import pytest

from ai_client.calls.fallback import candidates, may_fall_back
from ai_client.errors import (
    AIClientError,
    AuthenticationError,
    BadRequestError,
    BreakerOpenError,
    BudgetExceeded,
    ConnectionLostError,
    DeadlineExceeded,
    MaxRetriesExceeded,
    ModelNotFoundError,
    OverloadError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    TLSVerificationError,
)


@pytest.mark.parametrize(
    ("model", "chain", "expected"),
    [
        ("a", (), ("a",)),
        ("a", ("b", "c"), ("a", "b", "c")),
        ("b", ("b", "c"), ("b", "c")),
        ("a", ("b", "a", "b"), ("a", "b")),
        ("", ("b",), ("",)),
    ],
)
def test_each_model_is_asked_once(model: str, chain: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """The asked one first."""
    assert candidates(model, chain) == expected


@pytest.mark.parametrize(
    "error",
    [
        ServerError("u", "503", status=503),
        ConnectionLostError("h", "reset", sent=True),
        RateLimitError("u", "429"),
        BreakerOpenError("m", retry_after_s=1),
        MaxRetriesExceeded("r", attempts=4, last=ServerError("u", "503")),
    ],
)
def test_a_models_trouble_is_a_reason(error: AIClientError) -> None:
    """Another may do better."""
    assert may_fall_back(error, leaves_asked_model=True)


@pytest.mark.parametrize(
    "error",
    [
        BadRequestError("u", "400"),
        AuthenticationError("u", "401"),
        PermissionDeniedError("u", "403"),
        RateLimitError("u", "429", quota_spent=True),
        BudgetExceeded("t", scope="all", period="day", limit_usd=1, spent_usd=1, asked_usd=1),
        DeadlineExceeded("r", deadline_s=1, phase="queue"),
        OverloadError("t", queued=1, limit=1),
        TLSVerificationError("h", verify_reason="expired", tls_version="TLSv1.3"),
        MaxRetriesExceeded("r", attempts=4, last=RateLimitError("u", "429", quota_spent=True)),
    ],
)
def test_the_callers_and_the_accounts_own_trouble_is_none(error: AIClientError) -> None:
    """It would be the same with any model."""
    assert not may_fall_back(error, leaves_asked_model=True)


def test_a_wrong_name_is_the_callers_mistake_but_not_in_the_chain() -> None:
    """A chain outlives models; a caller's typo should be told."""
    error = ModelNotFoundError("gpt-41")
    assert not may_fall_back(error, leaves_asked_model=True)
    assert may_fall_back(error, leaves_asked_model=False)
