"""Who is calling: by uid on the Unix socket, by token on TCP."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

from ai_client.settings import GatewaySettings, TenantSettings

# What stands in the place of an address in the ASGI scope of a caller on the Unix socket.
UID_MARK = "@uid"

_UNNAMED = re.compile(r"uid-\d{1,10}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may call. An operator may also use the control routes and act for any tenant."""

    tenant: str
    priority: int
    is_operator: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a caller is sent away."""

    status: int
    code: str
    message: str


class Doorkeeper:
    """Knows the tenants of one configuration."""

    def __init__(self, *, tenants: tuple[TenantSettings, ...], operators: frozenset[int]) -> None:
        self._operators = operators
        self._by_uid = {tenant.uid: tenant for tenant in tenants if tenant.uid is not None}
        self._by_token = [
            (tenant.token_sha256.encode(), Caller(tenant.name, tenant.priority, is_operator=False))
            for tenant in tenants
            if tenant.token_sha256 is not None
        ]
        self._known_uids: dict[int, Caller] = {}
        self.tenants = {tenant.name: tenant for tenant in tenants}

    def by_uid(self, uid: int) -> Caller:
        """The caller with a uid. One that no tenant names is a tenant of its own: `uid-1000`."""
        caller = self._known_uids.get(uid)
        if caller is None:
            tenant = self._by_uid.get(uid)
            is_operator = uid in self._operators
            name = tenant.name if tenant else f"uid-{uid}"
            caller = Caller(name, tenant.priority if tenant else 5, is_operator)
            self._known_uids[uid] = caller
        return caller

    def by_token(self, authorization: bytes) -> Caller | Refusal:
        """The caller with a bearer token. Every known hash is compared, so that time tells nothing."""
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            message = "Connections over TCP need a token: send `Authorization: Bearer TOKEN`."
            return Refusal(401, "missing_token", message)
        digest = hashlib.sha256(token.strip()).hexdigest().encode()
        found = None
        for known, caller in self._by_token:
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            message = (
                "The token is not one of this gateway's; its SHA-256 belongs in a [tenant NAME] section."
            )
            return Refusal(401, "invalid_token", message)
        return found

    def acting_for(self, caller: Caller, name: str | None) -> Caller | Refusal:
        """The caller in the name of the tenant that it names: its own, or any where it is an operator."""
        if name is None or name == caller.tenant:
            return caller
        if not caller.is_operator:
            message = f"You are tenant {caller.tenant} and may not act for another."
            return Refusal(403, "tenant_not_allowed", message)
        tenant = self.tenants.get(name)
        if tenant is not None:
            return Caller(name, tenant.priority, is_operator=True)
        if _UNNAMED.fullmatch(name):
            return Caller(name, 5, is_operator=True)
        return Refusal(400, "invalid_header", "The header x-ai-tenant names no tenant of this gateway.")


class HostCheck:
    """Refuses requests that a web page made a browser send (DNS rebinding, cross-site requests)."""

    def __init__(self, gateway: GatewaySettings) -> None:
        names = {"localhost", "127.0.0.1", "[::1]", gateway.host}
        if ":" in gateway.host:
            names.add(f"[{gateway.host}]")
        self._names = frozenset(name.encode() for name in names)

    def refusal(self, *, host: bytes | None, origin: bytes | None) -> Refusal | None:
        """None where Host and Origin name this gateway, or there is no Origin."""
        if host is None or self._name(host) not in self._names:
            return Refusal(403, "host_not_allowed", "The Host header does not name this gateway.")
        if origin is None:
            return None
        scheme, mark, rest = origin.partition(b"://")
        if not mark or scheme not in (b"http", b"https") or rest != host:
            return Refusal(403, "origin_not_allowed", "Pages of other origins may not use this gateway.")
        return None

    @staticmethod
    def _name(host: bytes) -> bytes:
        if host.startswith(b"["):
            return host.partition(b"]")[0].lower() + b"]"
        return host.partition(b":")[0].lower()
