"""What each verb takes, from JSON to frozen values; nothing else in the package sees unchecked text."""

import re
from ipaddress import IPv4Address, IPv4Interface
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails, PydanticCustomError

from tools.hosts.errors import HostsError
from tools.hosts.suites import DEFAULT, SUITES

LOGIN = "deploy"
FLEET_MAX_CHARS = 20
HOST_MAX_CHARS = 32
_T = TypeVar("_T")
# No "--": it is what separates fleet from host in the name of a namespace.
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_LIKE = "use one like 10.88.0.21/24, or 10.88.0.1 for a service"
_EXACT = ConfigDict(extra="forbid")
# What takes a thing down may be given the whole input that put it up.
_OPEN = ConfigDict(extra="ignore")


def _refusal(reason: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{reason}", {"reason": reason, "remedy": remedy})


def _named(max_chars: int) -> BeforeValidator:
    def check(value: object) -> str:
        if not isinstance(value, str) or not _NAME.fullmatch(value) or len(value) > max_chars:
            remedy = f"use up to {max_chars} lower-case letters, digits and single hyphens between them"
            raise _refusal(f"{value!r} is not a name", remedy)
        return value

    return BeforeValidator(check)


def _only_text(value: object) -> object:
    """Pydantic would take a number for an address."""
    if isinstance(value, str | IPv4Address):
        return value
    raise _refusal(f"{value!r} is not an address", _LIKE)


def _of_a_host(value: IPv4Interface) -> IPv4Interface:
    if value.network.prefixlen > 30:
        raise _refusal(f"'{value.ip}' leaves room for no other", "use a prefix length of 30 or less")
    if value.ip in (value.network.network_address, value.network.broadcast_address):
        raise _refusal(f"'{value}' is not a host's address", "choose one within the network")
    return value


def _known_suite(value: object) -> str:
    if value not in SUITES or not isinstance(value, str):
        raise _refusal(f"{value!r} is not known", f"use one of {', '.join(SUITES)}")
    return value


def _local_login(value: object) -> str:
    if value != LOGIN:
        raise _refusal(f"{value!r} does not exist on local hosts", f"use {LOGIN!r}")
    return LOGIN


Fleet = Annotated[str, _named(FLEET_MAX_CHARS)]
Name = Annotated[str, _named(HOST_MAX_CHARS)]
Interface = Annotated[IPv4Interface, BeforeValidator(_only_text), AfterValidator(_of_a_host)]
SuiteName = Annotated[str, BeforeValidator(_known_suite)]


@dataclass(frozen=True, config=_EXACT)
class Link:
    """The only way in: a point-to-point link from this machine to the jump host."""

    control: Interface
    jump: Interface

    @model_validator(mode="after")
    def _has_two_ends(self) -> Self:
        if self.control.network != self.jump.network or self.control.ip == self.jump.ip:
            reason = f"{self.control} and {self.jump} are not two addresses of one network"
            raise _refusal(reason, "give both ends the same network")
        return self


@dataclass(frozen=True, config=_OPEN)
class FleetName:
    """One fleet."""

    fleet: Fleet


@dataclass(frozen=True, config=_OPEN)
class HostName:
    """One host of one fleet (or one service: they share the rules for names)."""

    fleet: Fleet
    name: Name


@dataclass(frozen=True, config=_EXACT)
class NetworkSpec:
    """A private network: its bridge's own address and, where there is a jump host, the link to it."""

    fleet: Fleet
    bridge: Interface
    link: Link | None = None


@dataclass(frozen=True, config=_EXACT)
class HostSpec:
    """A host as it shall be."""

    fleet: Fleet
    name: Name
    address: Interface
    suite: SuiteName = DEFAULT
    link: Interface | None = None
    login: Annotated[str, BeforeValidator(_local_login)] = LOGIN


@dataclass(frozen=True, config=_EXACT)
class Endpoint:
    """Where a service listens, seen from the fleet's bridge."""

    address: Annotated[IPv4Address, BeforeValidator(_only_text)]
    port: Annotated[int, Field(strict=True, gt=0, lt=65536)]


@dataclass(frozen=True, config=_EXACT)
class ServiceSpec:
    """A process in the fleet's bridge namespace; `argv` is relative to the project folder."""

    fleet: Fleet
    name: Name
    argv: Annotated[tuple[StrictStr, ...], Field(min_length=1)]
    ready: Endpoint | None = None


def read(kind: type[_T], text: str) -> _T:
    """The input of this kind that standard input holds, such as `{"fleet": …, "name": …}`. Raises HostsError."""
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        raise _explained(error.errors()[0]) from None


def suite_name(value: object) -> str:
    """One of the Debian releases that boot here. Raises HostsError."""
    try:
        return _known_suite(value)
    except PydanticCustomError as error:
        facts: Any = error.context
        raise HostsError("suite", facts["reason"], facts["remedy"]) from None


def _explained(error: ErrorDetails) -> HostsError:
    """Pydantic's first complaint, with what helps."""
    *outer, key = error["loc"] or ("stdin",)
    where = ".".join(map(str, outer)) or "stdin"
    match error["type"]:
        case "missing":
            return HostsError(where, f"{key!r} is missing", f"add {key!r} to the object")
        case "unexpected_keyword_argument":
            return HostsError(where, f"{key!r} is unknown", "leave it out")
        case "json_invalid":
            return HostsError("stdin", error["msg"], "pipe one JSON object in")
        case "refused":
            return HostsError(_dotted(error), error["ctx"]["reason"], error["ctx"]["remedy"])
        case "ip_v4_interface" | "ip_v4_address":
            return HostsError(_dotted(error), f"{error['input']!r} is not an address", _LIKE)
        case _:
            return HostsError(
                _dotted(error), f"{error['input']!r}: {error['msg']}", "give what the verb takes"
            )


def _dotted(error: ErrorDetails) -> str:
    return ".".join(map(str, error["loc"])) or "stdin"


def check_placement(host: HostSpec, network: NetworkSpec) -> None:
    """A host must lie in its network, and only the jump host has the link."""
    if host.address.network != network.bridge.network:
        reason = f"{host.address} is not in the network {network.bridge.network} of fleet {host.fleet}"
        raise HostsError(f"host {host.name}", reason, "give it an address of that network")
    if host.address.ip == network.bridge.ip:
        raise HostsError(f"host {host.name}", f"{host.address.ip} is the bridge's own", "choose another")
    if host.link is not None and (network.link is None or network.link.jump != host.link):
        wanted = None if network.link is None else str(network.link.jump)
        reason = f"its link {host.link} is not the network's ({wanted})"
        raise HostsError(f"host {host.name}", reason, "give both the same address")
