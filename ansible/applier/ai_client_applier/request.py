"""The whole desired state of one host, as the controller sends it."""

import json
import re
from typing import Any, NamedTuple

from ai_client_applier.errors import ApplyError
from ai_client_applier.glance import request_digest

PROTOCOL = 1
PARTS = ("deploy", "config", "secrets", "verify")
MODES = ("apply", "rollback", "decommission", "collect")

_UNSAFE_DIRECTORY = re.compile(
    r"/(?:bin|boot|dev|etc|home|lib|lib64|opt|proc|root|run|sbin|srv|sys|tmp|usr|var)?"
)


class Secret:
    """A key that no repr, log or traceback shows."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "Secret()"

    def __bool__(self) -> bool:
        return bool(self.text)


class Claim(NamedTuple):
    """Who owns the host: `name` as `fleet/dev/api-dev-01`, `owner` as `fleet/dev`."""

    name: str
    owner: str


class Directories(NamedTuple):
    """The role's folders, absolute."""

    config: str
    cache: str
    log: str


class ReleaseTree(NamedTuple):
    """One packed tree of the artefact. `glibc_min` is empty where it needs no C library."""

    digest: str
    glibc_min: str


class Gate(NamedTuple):
    """How a changed service is watched, and how much worse it may become.

    Attributes:
        seconds: how long.
        error_share: by how much the share of requests that end in an error of the service's own may rise.
        throttled_share: by how much that of attempts that are answered with 429.
        overhead_s: seconds that it may add to 95 of 100 requests.
        metrics: where it shows its counters, as `127.0.0.1:9090`; empty where it shows none.
    """

    seconds: float = 0.0
    error_share: float = 0.0
    throttled_share: float = 0.0
    overhead_s: float = 0.0
    metrics: str = ""


class Request(NamedTuple):
    """What the host should be; texts of files are complete. `digest` names all but the manner of the run."""

    digest: str
    mode: str
    parts: frozenset[str]
    check: bool
    claim: Claim
    run: str
    directories: Directories
    version: str
    trees: dict[str, ReleaseTree]
    config: str
    units: dict[str, str]
    ca_bundle: str
    cert_path: str
    socket: str
    spool_dir: str
    key: Secret
    key_next: Secret
    health_deadline_s: float
    keep_releases: int
    collect: dict[str, Any]
    gate: Gate
    tries_keys: bool

    @property
    def config_path(self) -> str:
        """The configuration file."""
        return f"{self.directories.config}/ai-client.conf"

    @property
    def key_path(self) -> str:
        """The key file."""
        return f"{self.directories.config}/key"

    @property
    def key_next_path(self) -> str:
        """The file of the key that a rotation goes to next."""
        return f"{self.directories.config}/key.next"

    @property
    def bundle_path(self) -> str:
        """Where the client reads the custom certificates."""
        return self.cert_path or f"{self.directories.config}/ca-bundle.pem"


def parse_request(desired: bytes, manner: bytes) -> Request:
    """Reads the controller's JSON: the desired state, and how this run goes about it.

    Raises ApplyError where controller and applier are of different releases.
    """
    raw: dict[str, Any] = {**json.loads(desired), **json.loads(manner)}
    if raw.get("protocol") != PROTOCOL:
        raise ApplyError(
            "the applier",
            f"speaks protocol {PROTOCOL}, the request {raw.get('protocol')}",
            "use one checkout",
        )
    trees = {tag: ReleaseTree(**tree) for tag, tree in raw["trees"].items()}
    return Request(
        digest=request_digest(desired),
        mode=raw["mode"],
        parts=frozenset(raw["parts"]),
        check=raw["check"],
        claim=Claim(**raw["claim"]),
        run=raw["run"],
        directories=_directories(raw["directories"]),
        version=raw["version"],
        trees=trees,
        config=raw["config"],
        units=raw["units"],
        ca_bundle=raw["ca_bundle"],
        cert_path=raw["cert_path"],
        socket=raw["socket"],
        spool_dir=raw["spool_dir"],
        key=Secret(raw["key"]),
        key_next=Secret(raw["key_next"]),
        health_deadline_s=raw["health_deadline_s"],
        keep_releases=raw["keep_releases"],
        collect=raw["collect"],
        gate=Gate(**raw["gate"]),
        tries_keys=raw["tries_keys"],
    )


def _directories(raw: dict[str, str]) -> Directories:
    """Refuses a folder whose ownership or removal would break the host."""
    for name, path in raw.items():
        parts = path.split("/")
        if not path.startswith("/") or "." in parts or ".." in parts or "" in parts[1:]:
            raise ApplyError(
                f"ai_{name}_dir", f"{path!r} is no plain absolute path", "write one such as /data/ai"
            )
        if _UNSAFE_DIRECTORY.fullmatch(path):
            raise ApplyError(f"ai_{name}_dir", f"{path} belongs to the system", "name a folder of its own")
    if len(set(raw.values())) < len(raw):
        raise ApplyError("ai_config_dir, ai_cache_dir, ai_log_dir", "two are the same", "name three folders")
    return Directories(**raw)
