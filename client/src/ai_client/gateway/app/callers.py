"""Who is calling: by uid on the Unix socket, by token on TCP."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

from ai_client.settings import GatewaySettings, TenantSettings

_UNNAMED = re.compile(r"uid-\d{1,10}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may call. An operator may also use the control routes and act for any tenant."""

    tenant: str
    priority: int
    is_operator: bool


@dataclass(frozen=True, slots=True)
class CallerRefusal:
    """Why a caller is sent away."""

    status: int
    code: str
    message: str


class Doorkeeper:
    """Knows the tenants of one configuration."""

    def __init__(
        self,
        *,
        tenants: tuple[TenantSettings, ...],
        operators: frozenset[int],
        refuses_unnamed: bool = False,
    ) -> None:
        self._refuses_unnamed = refuses_unnamed
        self._operators = operators
        self._by_uid = {tenant.uid: tenant for tenant in tenants if tenant.uid is not None}
        self._by_token = [
            (tenant.token_sha256.encode(), Caller(tenant.name, tenant.priority, is_operator=False))
            for tenant in tenants
            if tenant.token_sha256 is not None
        ]
        self._known_uids: dict[int, Caller] = {}
        self.tenants = {tenant.name: tenant for tenant in tenants}

    def by_uid(self, uid: int) -> Caller | CallerRefusal:
        """The caller with a uid. One that no tenant names is a tenant of its own, `uid-1000`, or is sent away."""
        caller = self._known_uids.get(uid)
        if caller is None:
            tenant = self._by_uid.get(uid)
            is_operator = uid in self._operators
            if tenant is None and not is_operator and self._refuses_unnamed:
                message = (
                    f"The user with uid {uid} is no tenant here. Name it by `uid = {uid}` in a [tenant NAME] section, "
                    "or let all users of the socket spend by `unnamed_callers = allow` in [gateway]."
                )
                return CallerRefusal(403, "unnamed_caller", message)
            name = tenant.name if tenant else f"uid-{uid}"
            caller = Caller(name, tenant.priority if tenant else 5, is_operator)
            self._known_uids[uid] = caller
        return caller

    def by_token(self, authorization: bytes) -> Caller | CallerRefusal:
        """The caller with a bearer token. Every known hash is compared, so that time tells nothing."""
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            message = "Connections over TCP need a token: send `Authorization: Bearer TOKEN`."
            return CallerRefusal(401, "missing_token", message)
        digest = hashlib.sha256(token.strip()).hexdigest().encode()
        found = None
        for known, caller in self._by_token:
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            message = (
                "The token is not one of this gateway's; its SHA-256 belongs in a [tenant NAME] section."
            )
            return CallerRefusal(401, "invalid_token", message)
        return found

    def acting_for(self, caller: Caller, name: str | None) -> Caller | CallerRefusal:
        """The caller in the name of the tenant that it names: its own, or any where it is an operator."""
        if name is None or name == caller.tenant:
            return caller
        if not caller.is_operator:
            message = f"You are tenant {caller.tenant} and may not act for another."
            return CallerRefusal(403, "tenant_not_allowed", message)
        tenant = self.tenants.get(name)
        if tenant is not None:
            return Caller(name, tenant.priority, is_operator=True)
        if _UNNAMED.fullmatch(name):
            return Caller(name, 5, is_operator=True)
        return CallerRefusal(400, "invalid_header", "The header x-ai-tenant names no tenant of this gateway.")


class HostCheck:
    """Refuses requests that a web page made a browser send (DNS rebinding, cross-site requests)."""

    def __init__(self, gateway: GatewaySettings) -> None:
        names = {"localhost", "127.0.0.1", "[::1]", gateway.host, *map(str.lower, gateway.names)}
        if ":" in gateway.host:
            names.add(f"[{gateway.host}]")
        self._names = frozenset(name.encode() for name in names)

    def refusal(self, *, host: bytes | None, origin: bytes | None) -> CallerRefusal | None:
        """None where Host and Origin name this gateway, or there is no Origin."""
        if host is None or self._name(host) not in self._names:
            return CallerRefusal(403, "host_not_allowed", "The Host header does not name this gateway.")
        if origin is None:
            return None
        scheme, mark, rest = origin.partition(b"://")
        if not mark or scheme not in (b"http", b"https") or rest != host:
            return CallerRefusal(
                403, "origin_not_allowed", "Pages of other origins may not use this gateway."
            )
        return None

    @staticmethod
    def _name(host: bytes) -> bytes:
        if host.startswith(b"["):
            return host.partition(b"]")[0].lower() + b"]"
        return host.partition(b":")[0].lower()
