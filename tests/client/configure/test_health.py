"""What the health check says of an upstream by what its `/models` answers."""

from __future__ import annotations

import pytest

from ai_client.configure.health import check_upstream
from ai_client.errors import (
    AIClientError,
    AuthenticationError,
    BadRequestError,
    ConnectError,
    MaxRetriesExceeded,
    ModelNotFoundError,
    RateLimitError,
    ServerError,
)
from ai_client.settings import Settings


@pytest.mark.parametrize(
    ("error", "is_ok", "told"),
    [
        (None, True, "answers in"),
        (BadRequestError("upstream", "404 Not Found", status=404), True, "without a list of models"),
        (BadRequestError("upstream", "405", status=405), True, "without a list of models"),
        (ModelNotFoundError("models"), True, "without a list of models"),
        (BadRequestError("upstream", "400 odd", status=400), False, "400 odd"),
        (RateLimitError("upstream", "429 slow"), True, "no room now"),
        (
            MaxRetriesExceeded("r", attempts=4, last=RateLimitError("upstream", "429 slow")),
            True,
            "no room now",
        ),
        (AuthenticationError("upstream", "401"), False, "refuses the key"),
        (ServerError("upstream", "503", status=503), False, "answers 503"),
        (ConnectError("api.test", "no route"), False, "no route"),
    ],
)
async def test_what_is_said_of_the_upstream(error: AIClientError | None, is_ok: bool, told: str) -> None:
    """A provider without a list of models, or without room in this minute, is no reason to stop a roll-out."""

    async def probe() -> None:
        if error is not None:
            raise error

    check = await check_upstream(Settings(), probe=probe)
    assert check.is_ok is is_ok
    assert told in check.detail
