"""Access tokens are renewed before they end, so that no request waits for one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ai_client.configure.identity import RETRY_S, Tokens
from ai_client.platform import json_log
from ai_client.settings import KeyMissingError

_LOOK_S = 30.0
_log = logging.getLogger(__name__)


async def keep_fresh(tokens: Tokens, renew: Callable[[], Awaitable[None]]) -> None:
    """Call `renew` whenever a token is due, for as long as the process serves."""
    while True:
        due_s = tokens.renew_in_s()
        if due_s is None or due_s > 0:
            await asyncio.sleep(_LOOK_S if due_s is None else min(due_s, _LOOK_S))
            continue
        try:
            await renew()
        except KeyMissingError as exc:
            _log.error("token_ended", extra=json_log.fields({"reason": str(exc)}))
            await asyncio.sleep(RETRY_S)
