"""From the service's settings to what its gateway serves by, and the end of what it served by before."""

from __future__ import annotations

from ai_client.client import AIAPIClient
from ai_client.configure.assembly import Assembly, limits
from ai_client.gateway.app.app import Runtime, Users
from ai_client.gateway.app.callers import Doorkeeper, HostCheck
from ai_client.gateway.app.own_limits import OwnLimits
from ai_client.gateway.app.routes import PassRule, Routes
from ai_client.platform.clock import Clock
from ai_client.settings import Settings


def runtime_of(
    settings: Settings, client: AIAPIClient, *, users: Users, operators: frozenset[int], clock: Clock
) -> Runtime:
    """`users` are those of `client`; `operators` the user ids that may control the service."""
    gateway = settings.gateway
    return Runtime(
        client=client,
        doorkeeper=Doorkeeper(
            tenants=settings.tenants, operators=operators, refuses_unnamed=settings.refuses_unnamed
        ),
        host_check=HostCheck(gateway),
        default_model=settings.models.default,
        max_body_bytes=int(gateway.max_body_mb * 1_000_000),
        users=users,
        deadline_buffer_s=settings.performance.request_timeout_buffer_s,
        routes=Routes([PassRule.read(each) for each in gateway.pass_through]),
        own_limits=OwnLimits(limits(settings), look=client.get_stats, clock=clock.monotonic),
    )


async def retire(assembly: Assembly, users: Users) -> None:
    """Close a client when the last request that began with it has ended."""
    await users.gone()
    await assembly.aclose()
