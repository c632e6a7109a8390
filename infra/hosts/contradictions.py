"""Values of one host that are fine alone and impossible together: the service would refuse to start with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from infra.project_files import role_defaults

_ROUNDING = 1e-9


class Contradiction(NamedTuple):
    """The variable to change, why, and how."""

    variable: str
    reason: str
    remedy: str


def contradictions(variables: Mapping[str, Any]) -> Iterator[Contradiction]:
    """What contradicts what.

    Args:
        variables: all variables that the host sees; those that it doesn't see are as the role has them.
    """
    seen = {**role_defaults(), **variables}
    kept, size = seen["ai_keepalive_connections"], seen["ai_pool_size"]
    if _is_number(kept) and _is_number(size) and kept > size:
        reason = f"{kept} connections can't be kept of {size}"
        yield Contradiction("ai_keepalive_connections", reason, "lower it to ai_pool_size or less")
    port = seen["ai_gateway_port"]
    if port and seen["ai_enable_metrics"] and str(port) == str(seen["ai_metrics_port"]):
        yield Contradiction(
            "ai_gateway_port", f"{port} is also ai_metrics_port", "give one of them another port"
        )
    yield from _of_tenants(seen["ai_tenants"])


def _of_tenants(tenants: object) -> Iterator[Contradiction]:
    if not isinstance(tenants, Mapping):
        return
    own = {name: tenant for name, tenant in tenants.items() if isinstance(tenant, Mapping)}
    for name in tenants.keys() - own.keys():
        yield Contradiction(
            "ai_tenants", f"{name} is no mapping", "write uid, token_sha256 and the like below it"
        )
    shares = [tenant.get("rate_share") for tenant in own.values()]
    if sum(float(share) for share in shares if isinstance(share, int | float)) > 1 + _ROUNDING:
        yield Contradiction("ai_tenants", "the tenants' shares sum to more than 1", "lower some of them")
    owners: dict[tuple[str, str], str] = {}
    for name, tenant in own.items():
        identities = [
            (key, str(tenant[key])) for key in ("uid", "token_sha256") if tenant.get(key) not in (None, "")
        ]
        if not identities:
            yield Contradiction("ai_tenants", f"nobody can be {name}", "set its uid, token_sha256 or both")
        for identity in identities:
            if identity in owners:
                reason = f"{identity[0]} of {name} is also that of {owners[identity]}"
                yield Contradiction("ai_tenants", reason, "give every tenant its own")
            owners[identity] = name


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
