"""Where everything of a fleet lies: folders, namespaces, interfaces, cgroups. Pure: nothing here touches the machine.

All names follow from the fleet's name (and its folder, where that is not the usual one), so that what a crash
left behind can be found again without any record.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.hosts.errors import HostsError

DEFAULT_FOLDER = Path("/var/lib/ai-client-fleet/local")
FOLDER_VARIABLE = "AI_CLIENT_FLEET_LOCAL_DIR"
_PATH = re.compile(r"[A-Za-z0-9._+@/-]+")
PROJECT = Path(__file__).resolve().parents[2]
NETNS_FOLDER = Path("/run/netns")


@dataclass(frozen=True)
class FleetPlaces:
    """The places of one fleet."""

    folder: Path
    """Holds all of the fleet's state."""
    scope: str
    """Its name, marked with a digest of the parent folder where that is not the default."""

    @property
    def netns(self) -> str:
        """The namespace of the bridge."""
        return f"acf-{self.scope}"

    @property
    def record(self) -> Path:
        """What `network up` was given."""
        return self.folder / "network.json"

    @property
    def gateway_token(self) -> Path:
        """The token that the gateways of the fleet's hosts take over TCP; root's alone."""
        return self.folder / "gateway-token"

    @property
    def identity(self) -> Path:
        """The control side's private ssh key."""
        return self.folder / "ssh" / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """Every host's address and public keys."""
        return self.folder / "known_hosts.json"

    @property
    def lock(self) -> Path:
        """Lies beside the folder, so that who removes the folder can hold it."""
        return self.folder.with_name(f"{self.folder.name}.lock")

    @property
    def cgroup(self) -> str:
        """Holds the cgroups of all hosts and services."""
        return self.netns

    @property
    def link_interface(self) -> str:
        """This machine's end of the link to the jump host."""
        return interface_name(self.scope, "link")

    def is_namespace(self, name: str) -> bool:
        """Whether a namespace is the bridge's or a host's of this fleet."""
        return name == self.netns or name.startswith(f"{self.netns}--")

    def host(self, name: str) -> "HostPlaces":
        """The places of one host."""
        return HostPlaces(self, name)

    def service(self, name: str) -> "ServicePlaces":
        """The places of one service."""
        return ServicePlaces(self, name)


@dataclass(frozen=True)
class HostPlaces:
    """The places of one host."""

    fleet: FleetPlaces
    name: str

    @property
    def folder(self) -> Path:
        return self.fleet.folder / "hosts" / self.name

    @property
    def record(self) -> Path:
        """What the host was made as."""
        return self.folder / "host.json"

    @property
    def process(self) -> Path:
        """Its container's process."""
        return self.folder / "process.json"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def upper(self) -> Path:
        """What the host has written over its image."""
        return self.folder / "upper"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def root(self) -> Path:
        """Where the overlay is mounted."""
        return self.folder / "root"

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    @property
    def lock(self) -> Path:
        return self.fleet.folder.with_name(f"{self.fleet.folder.name}.{self.name}.lock")

    @property
    def netns(self) -> str:
        return f"{self.fleet.netns}--{self.name}"

    @property
    def machine(self) -> str:
        """The container's name, unique on this machine."""
        return self.netns

    @property
    def cgroup(self) -> str:
        return f"{self.fleet.cgroup}/hosts/{self.name}"

    @property
    def bridge_port(self) -> str:
        """The bridge's end of the host's cable."""
        return interface_name(self.fleet.scope, "port", self.name)


@dataclass(frozen=True)
class ServicePlaces:
    """The places of one service."""

    fleet: FleetPlaces
    name: str

    @property
    def folder(self) -> Path:
        return self.fleet.folder / "services" / self.name

    @property
    def process(self) -> Path:
        return self.folder / "process.json"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def lock(self) -> Path:
        return self.fleet.folder.with_name(f"{self.fleet.folder.name}.service.{self.name}.lock")

    @property
    def cgroup(self) -> str:
        return f"{self.fleet.cgroup}/services/{self.name}"


def fleet_places(name: str, environment: Mapping[str, str]) -> FleetPlaces:
    """The places of a fleet; two local folders never share a namespace."""
    parent = Path(environment.get(FOLDER_VARIABLE) or DEFAULT_FOLDER).absolute()
    check_path(parent, FOLDER_VARIABLE)
    if parent == DEFAULT_FOLDER:
        return FleetPlaces(parent / name, name)
    mark = hashlib.sha256(str(parent).encode()).hexdigest()[:4]
    return FleetPlaces(parent / name, f"{name}.{mark}")


def interface_name(*parts: str) -> str:
    """A name of at most 15 characters, as the kernel wants it, that differs where the parts do."""
    digest = hashlib.sha256("/".join(parts).encode()).hexdigest()
    return f"acf{digest[:12]}"


def images_folder(environment: Mapping[str, str], home: Path) -> Path:
    """Where base images are cached."""
    cache = environment.get("XDG_CACHE_HOME")
    folder = (Path(cache) if cache else home / ".cache") / "ai-client-fleet" / "images"
    check_path(folder, "XDG_CACHE_HOME")
    return folder


def check_path(path: Path, variable: str) -> None:
    """Overlay options and ssh's configuration can't hold every character of a path."""
    if not path.is_absolute() or not _PATH.fullmatch(str(path)):
        remedy = f"set {variable} to an absolute path of letters, digits and . _ + @ -"
        raise HostsError(str(path), "can't hold local hosts", remedy)
