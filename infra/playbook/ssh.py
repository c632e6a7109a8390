"""OpenSSH configuration of a fleet: hosts reached through their jump hosts, with pinned host keys alone."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import PlaybookError
from infra.hosts.model import Captured, Node

if TYPE_CHECKING:  # a run needs this module and no settings: the models would slow its start
    from infra.config.schema import SshSettings

_CONNECTION_LENGTH = 16
# A socket's path has 107 characters at most, and ssh makes it with a dot and 16 more.
_LONGEST_FOLDER = 107 - 1 - _CONNECTION_LENGTH - 17
_SHORT = f"a folder with a path of at most {_LONGEST_FOLDER - len('/ai-client-fleet/cp')} characters"


def config_text(nodes: Iterable[Node], ssh: SshSettings, *, known_hosts: str) -> str:
    """An `ssh_config`. A host answers to its name and to its address, since Ansible connects to the address.

    Args:
        nodes: jump hosts and the hosts behind them.
        ssh: identity and timeout.
        known_hosts: path of the file that `known_hosts_text` fills.
    """
    return "\n".join([*map(_block, nodes), _for_all(ssh, known_hosts)])


def known_hosts_text(nodes: Iterable[Node], captured: Captured) -> str:
    """A `known_hosts` file: keys declared for a node or captured when it was made, else those that certify its key."""
    lines = [line for node in nodes for line in _known(node, captured)]
    return "".join(f"{line}\n" for line in lines)


def with_kept_connections(config: str, known_hosts: str, folder: str) -> str:
    """A configuration of `config_text` whose connections stay open for a minute, to be used again.

    What a connection is kept under depends on everything that leads to its host: address, login, host keys, and the
    same of its jump hosts. So two fleets with equal addresses never share one, and a host that was made anew has
    another one. A jump host's connection serves all hosts behind it.
    """
    blocks = config.split("\n\n")
    by_name = {block.split()[1]: block for block in blocks}

    def path(name: str) -> str:
        block = by_name[name]
        keys = [line for line in known_hosts.splitlines() if name in line.split()[:2]]
        jump = block.partition("ProxyJump ")[2].split("\n")[0]
        text = "\n".join([block, *keys, *(path(hop) for hop in jump.split(",") if hop)])
        return f"{folder}/{hashlib.sha256(text.encode()).hexdigest()[:_CONNECTION_LENGTH]}"

    kept = [
        block.rstrip("\n") + f"\n  ControlPath {path(name)}\n"
        for name, block in by_name.items()
        if name != "*"
    ]
    return "\n".join([*kept, by_name["*"].rstrip("\n") + "\n  ControlMaster auto\n  ControlPersist 60s\n"])


def connections_folder() -> Path:
    """Where kept connections lie: in the cache, or in a short path of one's own where that is too long for sockets.

    Raises PlaybookError where others could reach it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "ai-client-fleet" / "cp"
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        folder = Path(f"/tmp/ai-client-fleet-{os.geteuid()}")  # noqa: S108 - checked below
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        reason = "is not a folder that only you can use, but would keep connections to hosts"
        raise PlaybookError(
            str(folder), reason, f"set its mode to 0700, or XDG_CACHE_HOME to {_SHORT} of yours"
        )
    return folder


def is_pinned(node: Node, captured: Captured) -> bool:
    """Whether it is known which host key a node may show."""
    return bool(_known(node, captured))


def _known(node: Node, captured: Captured) -> list[str]:
    keys = node.host_keys or captured.host_keys.get(node.name, ())
    certified = [f"@cert-authority {node.name} {key}" for key in node.host_authorities]
    return [f"{node.name} {key}" for key in keys] or certified


def _block(node: Node) -> str:
    lines = [
        f"Host {node.name} {node.address}" if node.name != node.address else f"Host {node.name}",
        f"  HostName {node.address}",
        f"  HostKeyAlias {node.name}",
        f"  Port {node.port}",
        f"  User {node.user}",
    ]
    if node.jump:
        lines.append(f"  ProxyJump {','.join(node.jump)}")
    return "\n".join(lines) + "\n"


def _for_all(ssh: SshSettings, known_hosts: str) -> str:
    lines = [
        "Host *",
        f"  UserKnownHostsFile {known_hosts}",
        "  GlobalKnownHostsFile none",
        "  StrictHostKeyChecking yes",
        "  UpdateHostKeys no",
        "  BatchMode yes",
        "  Compression no",
        f"  ConnectTimeout {ssh.connect_timeout_s}",
        "  ServerAliveInterval 10",
        "  ServerAliveCountMax 3",
    ]
    if ssh.identity_file:
        lines += [f"  IdentityFile {ssh.identity_file}", "  IdentitiesOnly yes"]
    return "\n".join(lines) + "\n"
