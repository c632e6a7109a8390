"""Accepting once more, where another process was to do it and does not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ai_client.platform import json_log

AGAIN_S = 1.0

_log = logging.getLogger(__name__)


async def accept_again(accept: Callable[[], Awaitable[None]], *, until: asyncio.Event) -> None:
    """Tries until it works, or `until` is set: it needs descriptors, of which there may be none for a moment."""
    while not until.is_set():
        try:
            await accept()
        except OSError as exc:
            _log.error("not_accepting", extra=json_log.fields({"reason": str(exc)}))
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    await until.wait()
        else:
            return
