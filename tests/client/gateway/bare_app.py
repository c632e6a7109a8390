"""The gateway's application alone, over an upstream of the test's own."""

from __future__ import annotations

import time
from typing import Any

from ai_client.contract.options import Limits
from ai_client.gateway.app.app import GatewayApp, Runtime, Users
from ai_client.gateway.app.callers import Doorkeeper, HostCheck
from ai_client.gateway.app.client import Client
from ai_client.gateway.app.own_limits import OwnLimits
from ai_client.gateway.app.pacing import Pacer
from ai_client.gateway.http.asgi import UID_MARK, Scope
from ai_client.settings import GatewaySettings, TenantSettings

CHAT: Scope = {
    "type": "http",
    "http_version": "1.1",
    "method": "POST",
    "path": "/v1/chat/completions",
    "query_string": b"",
    "headers": [],
    "client": (UID_MARK, 0),
}


class _Control:
    async def reload(self) -> tuple[bool, dict[str, Any]]:
        return True, {}

    async def health(self) -> dict[str, Any]:
        return {}

    async def status(self) -> dict[str, Any]:
        return {}


def bare_app(
    upstream: Client,
    *,
    deadline_buffer_s: float = 0.0,
    tenants: tuple[TenantSettings, ...] = (),
    operators: frozenset[int] = frozenset(),
) -> GatewayApp:
    """It lets everybody in and has no limits of its own."""
    none_used = {"window_requests": 0, "window_tokens": 0}
    runtime = Runtime(
        client=upstream,
        doorkeeper=Doorkeeper(tenants=tenants, operators=operators),
        host_check=HostCheck(GatewaySettings()),
        default_model="gpt-4.1",
        max_body_bytes=1000,
        users=Users(),
        own_limits=OwnLimits(Limits(), look=lambda: none_used, clock=time.monotonic),
        deadline_buffer_s=deadline_buffer_s,
    )
    return GatewayApp(runtime, control=_Control(), pacer=Pacer(Limits(), clock=time.monotonic))
