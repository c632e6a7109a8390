"""The models of a stack's configuration.

Every key that a user may write under `fleet:` is a field here, spelled in camelCase in the stack's file.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, SecretStr, WithJsonSchema

from infra.config.key_source import ApiKeySecretSettings, KeySourceSettings
from infra.config.model import Model, Region, RoleArn, matching

# Of every key of Pulumi's configuration that is this program's.
PREFIX = "fleet:"

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_UPSTREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_GROUP_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_ADDRESS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")
_TASK_FILE = re.compile(r"(?!(?:.*/)?\.\.(?:/|$))[^/~\s][^~\n]*\.ya?ml")
_LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_PERCENT = re.compile(r"([1-9]\d?|100)%")
_HOST_KEY = re.compile(r"(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]+={0,2}")
_OWNER = r"^fleet/[a-z0-9@-]{1,120}$"


def _not_root(value: str) -> str:
    if value == "root":
        raise ValueError("root never logs in over ssh: name a login that has sudo")
    return value


def _steps(value: Any) -> Any:
    steps = value if isinstance(value, list | tuple) else [value]
    for step in steps:
        is_number = isinstance(step, int) and not isinstance(step, bool) and step >= 1
        if not is_number and not (isinstance(step, str) and _PERCENT.fullmatch(step)):
            raise ValueError(
                "each step is a number of hosts, 1 or more, or a part of the group such as '25%'"
            )
    return tuple(steps)


_STEP = [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_PERCENT.pattern}$"}]
Steps = Annotated[
    tuple[int | str, ...],
    BeforeValidator(_steps),
    WithJsonSchema({"anyOf": [*_STEP, {"type": "array", "items": {"anyOf": _STEP}}]}),
]
# Below the project folder: a path of one machine would be in the state of all.
TaskFile = Annotated[
    str,
    matching(_TASK_FILE, "a file of tasks below the project folder is needed, such as 'tasks/drain.yml'"),
]
HostsFile = Annotated[
    str,
    matching(_TASK_FILE, "a YAML file below the project folder is needed, such as 'hosts/web.yml'"),
]
HostName = Annotated[str, matching(_NAME, "a host name is lower-case letters, digits and hyphens")]
GroupName = Annotated[
    str, matching(_GROUP_NAME, "a group name is lower-case letters, digits and underscores")
]
Address = Annotated[str, matching(_ADDRESS, "an IP address or a DNS name is needed")]
Login = Annotated[str, matching(_LOGIN, "not a login name"), AfterValidator(_not_root)]
HostKey = Annotated[
    str, matching(_HOST_KEY, "a public host key such as 'ssh-ed25519 AAAA…', without host name, is needed")
]
Port = Annotated[int, Field(ge=1, le=65535)]
InstanceState = Literal["pending", "running", "stopping", "stopped"]


def is_host_key(text: str) -> bool:
    """Whether a text is a public host key in OpenSSH's one-line form, without host name."""
    return bool(_HOST_KEY.fullmatch(text))


class HostSettings(Model):
    """One declared host. `suite` is for local hosts only. A cordoned host is left untouched, and stays in the stack."""

    address: Address
    user: Login | None = None
    port: Port | None = None
    zone: str = ""
    jump: tuple[HostName, ...] | None = None
    host_keys: tuple[HostKey, ...] = ()
    suite: Literal["bullseye", "bookworm", "trixie", "forky"] | None = None
    cordoned: bool = False
    vars: dict[str, Any] = Field(default_factory=dict)


class Ec2Settings(Model):
    """Which existing instances are a group's hosts, how they are named, and where their host keys come from.

    `filters` are those of DescribeInstances (`tag:Role: [api]`); an instance must match all of them. `name_tag` ""
    names hosts by instance id. `host_keys`, by host name or instance id, take precedence over the `host_key_tag`.
    """

    filters: dict[str, tuple[str, ...]] = Field(min_length=1)
    region: Region | None = None
    vpc_id: str | None = None
    zones: tuple[str, ...] = ()
    states: tuple[InstanceState, ...] = Field(
        default=("pending", "running", "stopping", "stopped"), min_length=1
    )
    role_arn: RoleArn | None = None
    name_tag: str = "Name"
    host_key_tag: str = "ssh-host-key"
    host_keys: dict[HostName, tuple[HostKey, ...]] = Field(default_factory=dict)
    allow_empty: bool = False


class GroupSettings(Model):
    """A group of hosts, or of other groups (`children`).

    `share` is the group's part of `account`, above 0 and at most 1, divided equally between its hosts.
    """

    source: Literal["static", "local", "ec2"] = "static"
    hosts: dict[HostName, HostSettings] = Field(default_factory=dict)
    hosts_file: HostsFile | None = None
    ec2: Ec2Settings | None = None
    children: tuple[GroupName, ...] = ()
    user: Login | None = None
    port: Port | None = None
    jump: tuple[HostName, ...] = ()
    canary: int = Field(default=1, ge=0)
    serial: Steps = ()
    before: TaskFile | None = None
    after: TaskFile | None = None
    share: float | None = Field(default=None, gt=0, le=1)
    vars: dict[str, Any] = Field(default_factory=dict)


class JumpHostSettings(Model):
    """A host through which ssh reaches others. `suite` is for local jump hosts only."""

    source: Literal["static", "local"] = "static"
    address: Address
    user: Login | None = None
    port: Port = 22
    jump: tuple[HostName, ...] = ()
    host_keys: tuple[HostKey, ...] = ()
    suite: Literal["bullseye", "bookworm", "trixie", "forky"] | None = None


class SshSettings(Model):
    """How to connect by ssh. Without `identity_file`, ssh uses the keys in the agent and its own defaults.

    `certificate_authority` lists the public keys of CAs that sign host keys, for hosts without a pinned key.
    """

    identity_file: str | None = None
    certificate_authority: tuple[HostKey, ...] = ()
    connect_timeout_s: int = Field(default=10, ge=1, le=300)


class SimulatorSettings(Model):
    """The provider simulator of a local fleet. It listens on the bridge's address."""

    port: Port = 8000
    rpm: int = Field(default=6000, ge=1)
    tpm: int = Field(default=2_000_000, ge=1)
    latency_ms: int = Field(default=42, ge=0)


class LocalSettings(Model):
    """Hosts that the stack boots itself on this machine."""

    bridge: str = "10.88.0.1/24"
    link: str = "198.18.0.0/30"
    suite: Literal["bullseye", "bookworm", "trixie", "forky"] = "bookworm"
    simulator: SimulatorSettings = SimulatorSettings()

    @property
    def bridge_interface(self) -> ipaddress.IPv4Interface:
        return ipaddress.IPv4Interface(self.bridge)

    @property
    def link_ends(self) -> tuple[str, str]:
        """Address with prefix length of the control side and of the jump host."""
        network = ipaddress.IPv4Network(self.link)
        control, jump = list(network.hosts())[:2]
        return f"{control}/{network.prefixlen}", f"{jump}/{network.prefixlen}"


class ModelLimitSettings(Model):
    """What the provider grants for one model: requests, tokens and images per minute, requests and tokens per day.

    `burst_s` and `counts` apply to each host as they are; the limits are divided between hosts like the account's.
    """

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    input_tokens_per_minute: int | None = Field(default=None, ge=1)
    output_tokens_per_minute: int | None = Field(default=None, ge=1)
    images_per_minute: int | None = Field(default=None, ge=1)
    requests_per_day: int | None = Field(default=None, ge=1)
    tokens_per_day: int | None = Field(default=None, ge=1)
    burst_s: float | None = Field(default=None, ge=1, le=60)
    counts: Literal["use", "estimate"] = "use"


class AccountSettings(Model):
    """What the provider grants the whole account.

    `models` has the limits of single models, by name: `NAME/MODEL` or `NAME` for other upstreams.
    """

    rpm: int = Field(ge=1)
    tpm: int | None = Field(default=None, ge=1)
    models: dict[str, ModelLimitSettings] = Field(default_factory=dict)


class GateSettings(Model):
    """How a host whose release or configuration changed is watched before the next wave.

    A host that got worse is rolled back. Errors of the upstream never count.
    """

    seconds: float = Field(default=15, ge=0, le=900)
    max_error_share: float = Field(default=0.02, ge=0, le=1)
    max_throttled_share: float = Field(default=0.1, ge=0, le=1)
    max_overhead_ms: float = Field(default=500, gt=0)


class CoordinationSettings(Model):
    """A Valkey or Redis that lends the account's quota between hosts. Without it, each host has a fixed share.

    `password` is secret. `ca_path` is a file on the hosts. Stacks that share an account use the same `account`.
    """

    endpoint: str = Field(pattern=r"^rediss?://[^\s/?#@]+(/\d{1,3})?$")
    user: str | None = Field(default=None, pattern=r"^[^\s#;=%]{1,64}$")
    password: str | None = None
    ca_path: str | None = Field(default=None, pattern=r"^/\S+$")
    account: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,64}$")
    shared_budgets: bool = False


#: Of `[model_costs]`; a tier has a factor, or members of its own.
PriceMember = Literal[
    "input",
    "output",
    "cached_input",
    "cache_write",
    "cache_write_1h",
    "reasoning",
    "audio_input",
    "audio_output",
    "image_input",
    "cached_image_input",
    "image_output",
    "request",
    "image",
    "search",
    "minute",
    "characters",
    "flex",
    "batch",
    "priority",
    "fast",
    "scale",
    "long_from",
    "long",
    "regional",
]
Price = float | dict[PriceMember, float | dict[PriceMember, float]]
UpstreamName = Annotated[
    str, matching(_UPSTREAM_NAME, "an upstream's name is letters, digits, dots, - and _")
]


class UpstreamSettings(Model):
    """Another provider's account, beside that of `apiKey`. Its models are called `NAME/MODEL`.

    `models` maps the names that callers use to the upstream's own names. `api_key` and `api_key_next` are secret.
    """

    base_url: str = Field(pattern=r"^https?://[^\s?#]+$")
    dialect: Literal["compatible", "openai", "azure", "anthropic"] = "compatible"
    api_version: str = ""
    needs_key: bool = True
    key_from: Literal["file", "credential", "google", "azure"] = "file"
    key_prefix: str = ""
    told_cost: bool = False
    bills_cut_streams: bool = False
    models: dict[str, str] = Field(default_factory=dict)
    prices: dict[str, Price] = Field(default_factory=dict)
    order: int = Field(default=1, ge=0, le=1000)
    weight: float = Field(default=1, gt=0)
    api_key: str | None = None
    api_key_next: str | None = None
    key_source: KeySourceSettings | None = None


class FleetSettings(Model):
    """Everything under `fleet:` of one stack."""

    stack: str
    environment: str = Field(min_length=1, max_length=64)
    user: Login = "deploy"
    groups: dict[GroupName, GroupSettings] = Field(min_length=1)
    jump_hosts: dict[HostName, JumpHostSettings] = Field(default_factory=dict)
    vars: dict[str, Any] = Field(default_factory=dict)
    ssh: SshSettings = SshSettings()
    local: LocalSettings = LocalSettings()
    cordon: tuple[HostName, ...] = ()
    max_removals: int = Field(default=1, ge=0)
    allow_destroy: bool = False
    owner: str | None = Field(default=None, pattern=_OWNER)
    take_over: str | None = Field(default=None, pattern=_OWNER)
    probe: bool | Literal["registry"] = True
    require_plan: str | None = Field(default=None, pattern=r"^[0-9a-f]{16}$")
    account: AccountSettings | None = None
    coordination: CoordinationSettings | None = None
    gate: GateSettings = GateSettings()
    api_key: SecretStr | None = None
    api_key_next: SecretStr | None = None
    api_keys: dict[GroupName, SecretStr] = Field(default_factory=dict)
    api_key_secret: ApiKeySecretSettings | None = None
    key_source: KeySourceSettings | None = None
    upstreams: dict[UpstreamName, UpstreamSettings] = Field(default_factory=dict)

    _secrets: dict[str, SecretStr] = PrivateAttr(default_factory=dict)

    def keep_secrets(self, values: Mapping[str, SecretStr]) -> None:
        """Keeps the secret texts for which expressions stand among the variables, by name."""
        self._secrets.update(values)

    @property
    def secrets(self) -> dict[str, str]:
        """Secret texts among the variables, by the name of the environment variable that brings them to Ansible."""
        return {name: value.get_secret_value() for name, value in self._secrets.items()}

    @property
    def has_local_hosts(self) -> bool:
        return any(group.source == "local" for group in self.groups.values())

    @property
    def source_of_the_key(self) -> tuple[str, KeySourceSettings] | None:
        """Where the stack's key is kept, under the key of the configuration that says so; None for the stack."""
        if self.api_key_secret is not None:
            return f"{PREFIX}apiKeySecret", KeySourceSettings(aws=self.api_key_secret)
        return None if self.key_source is None else (f"{PREFIX}keySource", self.key_source)

    def key_for(self, group: str) -> SecretStr | None:
        """The upstream key of a group: its own, or the stack's."""
        return self.api_keys.get(group, self.api_key)

    def key_next_for(self, group: str) -> SecretStr | None:
        """The key that a rotation of the stack's key goes to; a group with a key of its own takes no part in it."""
        return None if group in self.api_keys else self.api_key_next
