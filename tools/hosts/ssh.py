"""Keys made on the control side, the record of them, and the proof that a host lets its login in."""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from tools.hosts.commands import run
from tools.hosts.errors import HostsError
from tools.hosts.files import locked, read_record, write_record, write_text
from tools.hosts.inputs import LOGIN
from tools.hosts.netns import path_of
from tools.hosts.places import FleetPlaces

HOST_KEY = "ssh_host_ed25519_key"
_REMEDY = "see that openssh-client works here"


def ensure_key_pair(path: Path, comment: str) -> str:
    """Makes an ed25519 key pair where it is not there in full; returns the public half."""
    public = path.with_name(f"{path.name}.pub")
    if not (path.exists() and public.exists()):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        beside = path.with_name("making")
        for half in (beside, beside.with_name("making.pub")):
            half.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(beside)], remedy=_REMEDY)
        beside.rename(path)
        beside.with_name("making.pub").rename(public)
    return public.read_text().strip()


def ensure_token(path: Path) -> str:
    """Makes a random token where there is none; returns its SHA-256 in hexadecimal, never the token."""
    if not path.exists():
        write_text(path, secrets.token_urlsafe(32) + "\n", mode=0o600)
    return hashlib.sha256(path.read_text().strip().encode()).hexdigest()


def record_host(places: FleetPlaces, name: str, address: str, key: str, say: Callable[[str], None]) -> None:
    """Pins a host's public key before it boots for the first time."""
    with locked(_known_hosts_lock(places), say=say):
        known = dict(read_record(places.known_hosts) or {})
        entry = {"address": address, "keys": [" ".join(key.split()[:2])]}
        if known.get(name) != entry:
            write_record(places.known_hosts, {**known, name: entry})


def forget_host(places: FleetPlaces, name: str, say: Callable[[str], None]) -> None:
    """Takes a removed host out of the record."""
    if not places.known_hosts.exists():
        return
    with locked(_known_hosts_lock(places), say=say):
        known = dict(read_record(places.known_hosts) or {})
        if known.pop(name, None) is not None:
            write_record(places.known_hosts, known)


def host_keys(known: Mapping[str, object] | None, name: str) -> list[str]:
    """A host's pinned public keys; none where it was never made."""
    entry = (known or {}).get(name)
    keys = entry.get("keys") if isinstance(entry, dict) else None
    return [str(key) for key in keys] if isinstance(keys, list) else []


def write_pin(path: Path, address: str, key: str) -> None:
    """A known_hosts file of one line."""
    write_text(path, f"{address} {key}\n", mode=0o600)


def try_login(*, identity: Path, pin: Path, address: str, netns: str | None, timeout_s: float) -> str | None:
    """Logs in as a deploy would, with the pinned key; None where it works, else what ssh said."""
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": str(max(1, round(timeout_s))),
        "HostKeyAlgorithms": "ssh-ed25519",
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f'"{pin}"',
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    within = [] if netns is None else ["nsenter", f"--net={path_of(netns)}", "--"]
    try:
        argv = [
            *within,
            "ssh",
            "-F",
            "none",
            "-i",
            str(identity),
            *words,
            f"{LOGIN}@{address}",
            "sudo -n true",
        ]
        run(argv, timeout_s=timeout_s + 5, remedy="see the host's console")
    except HostsError as error:
        return error.reason
    return None


def _known_hosts_lock(places: FleetPlaces) -> Path:
    return places.folder / ".known_hosts.lock"
