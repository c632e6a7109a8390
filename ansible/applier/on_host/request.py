"""The whole desired state of one host, as the controller sends it."""

import json
import re
from typing import Any, NamedTuple

from .errors import ApplyError
from .unchanged_check import request_digest

PROTOCOL = 1
PARTS = ("deploy", "config", "secrets", "verify")
MODES = ("apply", "rollback", "decommission", "collect")

_UNSAFE_DIRECTORY = re.compile(
    r"/(?:bin|boot|dev|etc|home|lib|lib64|opt|proc|root|run|sbin|srv|sys|tmp|usr|var)?"
)

_UPSTREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


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
    """Who owns the host: `name` as `fleet/dev/api-dev-01`, `owner` as `fleet/dev`.

    `lineage` tells two states of one name apart; empty where the state has none.
    """

    name: str
    owner: str
    lineage: str = ""


class Directories(NamedTuple):
    """The role's folders, absolute."""

    config: str
    cache: str
    log: str


class ReleaseTree(NamedTuple):
    """One packed tree: `glibc_min` is empty where it needs no C library, `size` in bytes, 0 where unknown."""

    digest: str
    glibc_min: str
    size: int = 0


PYTHONS = ("host", "own", "auto")


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
    python: str
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
    #: The same for the keys of other upstreams.
    tries_upstream_keys: bool
    adopts_account: bool
    takes_over: str
    needs_consent: bool
    consent: str
    #: Keys of other upstreams by name, each with the one that a rotation goes to.
    upstream_keys: dict[str, tuple[Secret, Secret]]
    #: Password for the engine that lends quota; empty where this project lays none down.
    coordination_password: Secret

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
    def coordination_path(self) -> str:
        """The file of the password for the engine that lends quota."""
        return f"{self.directories.config}/coordination"

    @property
    def keys_folder(self) -> str:
        """The folder of the other upstreams' keys, each in a file of its upstream's name."""
        return f"{self.directories.config}/keys"

    @property
    def key_files(self) -> dict[str, Secret]:
        """The other upstreams' keys by their paths."""
        files = {f"{self.keys_folder}/{name}": key for name, (key, _) in self.upstream_keys.items()}
        following = {f"{self.keys_folder}/{name}.next": key for name, (_, key) in self.upstream_keys.items()}
        return {**files, **{path: key for path, key in following.items() if key}}

    @property
    def bundle_path(self) -> str:
        """Where the client reads the custom certificates."""
        return self.cert_path or f"{self.directories.config}/ca-bundle.pem"


# Members of the request that are plain values, and in every request.
_AS_SENT = (
    *("mode", "check", "run", "version", "python", "config", "units", "ca_bundle", "cert_path", "socket"),
    *("spool_dir", "health_deadline_s", "keep_releases", "collect", "tries_keys"),
)


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
    as_sent: dict[str, Any] = {name: raw[name] for name in _AS_SENT}
    return Request(
        digest=request_digest(desired),
        parts=frozenset(raw["parts"]),
        claim=Claim(**raw["claim"]),
        directories=_directories(raw["directories"]),
        trees={tag: ReleaseTree(**tree) for tag, tree in raw["trees"].items()},
        key=Secret(raw["key"]),
        key_next=Secret(raw["key_next"]),
        gate=Gate(**raw["gate"]),
        # Not in requests from before these: absent, all is as it was then.
        tries_upstream_keys=raw.get("tries_upstream_keys") is True,
        adopts_account=raw.get("adopts_account") is True,
        takes_over=raw.get("takes_over") or "",
        needs_consent=raw.get("needs_consent") is True,
        consent=raw.get("consent") or "",
        upstream_keys=_upstream_keys(raw.get("upstream_keys") or {}),
        coordination_password=Secret(raw.get("coordination_password") or ""),
        **as_sent,
    )


def _upstream_keys(raw: dict[str, dict[str, str]]) -> dict[str, tuple[Secret, Secret]]:
    """Refuses a name that would leave the folder of keys."""
    for name in raw:
        if not _UPSTREAM.fullmatch(name):
            raise ApplyError(
                "ai_upstream_keys", f"{name!r} is not the name of an upstream", "name it plainly"
            )
    return {name: (Secret(keys["key"]), Secret(keys["next"])) for name, keys in raw.items()}


def _directories(raw: dict[str, str]) -> Directories:
    """Refuses a folder whose ownership or removal would break the host."""
    for name, path in raw.items():
        parts = path.split("/")
        if not path.startswith("/") or "." in parts or ".." in parts or "" in parts[1:]:
            raise ApplyError(
                f"ai_{name}_dir", f"{path!r} is not a plain absolute path", "write one such as /data/ai"
            )
        if _UNSAFE_DIRECTORY.fullmatch(path):
            raise ApplyError(f"ai_{name}_dir", f"{path} belongs to the system", "name a folder of its own")
    if len(set(raw.values())) < len(raw):
        raise ApplyError("ai_config_dir, ai_cache_dir, ai_log_dir", "two are the same", "name three folders")
    return Directories(**raw)
