"""Drop-ins of our units: those that weaken the sandbox or open a socket further are drift, others are left alone."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from . import places
from .masking import mask
from .tree import Tree

# Where systemd takes drop-ins from: by hand, by `systemctl set-property`, until the next boot, and of packages.
_BASES = (
    *(places.UNIT_DIR, "/etc/systemd/system.control"),
    *("/run/systemd/system", "/run/systemd/system.control"),
    *("/usr/local/lib/systemd/system", "/usr/lib/systemd/system"),
)
_TRUE = frozenset({"yes", "true", "on", "1"})
_FALSE = frozenset({"no", "false", "off", "0"})
# Where ours is a list, an entry with this before it takes something away.
_DENIES = "~"
_LISTS = frozenset({"SystemCallFilter", "RestrictAddressFamilies", "CapabilityBoundingSet"})
_SANDBOX = frozenset(
    {
        *("User", "Group", "LimitCORE", "UMask", "NoNewPrivileges", "CapabilityBoundingSet"),
        *("AmbientCapabilities", "ProtectSystem", "ProtectHome", "ProtectClock", "ProtectControlGroups"),
        *("ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables"),
        *("ProtectProc", "ProcSubset", "PrivateDevices", "PrivateTmp", "RestrictAddressFamilies"),
        *("RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality"),
        *("MemoryDenyWriteExecute", "RemoveIPC", "KeyringMode", "SystemCallArchitectures"),
        *("SystemCallFilter", "ExecStart", "ReadWritePaths"),
    }
)
# Not in our unit: what any value of these gives, the sandbox takes.
_POWERS = frozenset(
    {
        *("SupplementaryGroups", "BindPaths", "RootDirectory", "RootImage", "PermissionsStartOnly"),
        *("SecureBits", "DeviceAllow", "PAMName", "DynamicUser", "OpenFile"),
    }
)
# What opens a socket to more callers, or leads them elsewhere.
_LISTENS = "Listen"
_MODES = frozenset({"SocketMode", "DirectoryMode"})
_OF_SOCKETS = frozenset({"SocketUser", "SocketGroup", "Service"})
# The program of such a line runs outside of the sandbox.
_OUTSIDE = ("+", "!")
_SHOWN = 5


class DropIn(NamedTuple):
    """One file: `weakens` are its lines that take from the sandbox, `lines` all of the unit's.

    `is_shared` where it is of other units, too.
    """

    path: str
    lines: tuple[str, ...]
    weakens: tuple[str, ...]
    is_shared: bool = False

    @property
    def is_drift(self) -> bool:
        """Whether a run sets it aside."""
        return bool(self.weakens) and not self.is_shared

    def note(self) -> str:
        """In words, for a reader."""
        if self.weakens:
            weak = ", ".join(mask(line) for line in self.weakens[:_SHOWN])
            return f"drop-in {self.path}, left alone as it is of other units, too: it weakens the service ({weak})"
        shown = ", ".join(mask(line) for line in self.lines[:_SHOWN]) or "nothing of the service"
        return f"drop-in {self.path}, left alone: {shown}"


def folders(units: Iterable[str]) -> "list[str]":
    """Every folder that systemd takes drop-ins of these units from."""
    return list(dict.fromkeys(f"{base}/{name}" for unit in units for base in _BASES for name in _names(unit)))


def _names(unit: str) -> "list[str]":
    """`ai-client.service.d`; and those of all units whose names begin as this one's, or are of its type."""
    stem, _, kind = unit.rpartition(".")
    words = stem.split("-")
    prefixes = ["-".join(words[:count]) + "-" for count in range(len(words) - 1, 0, -1)]
    return [f"{unit}.d", *(f"{prefix}.{kind}.d" for prefix in prefixes), f"{kind}.d"]


def drop_ins(tree: Tree, units: "Mapping[str, str]") -> "list[DropIn]":
    """Every drop-in of our units, held against their texts."""
    found: dict[str, DropIn] = {}
    for unit, text in units.items():
        section = _section(unit)
        ours: dict[str, list[str]] = {}
        for key, value in _assignments(text, section):
            ours.setdefault(key, []).append(value)
        for folder in folders([unit]):
            for name in tree.names(folder):
                path = f"{folder}/{name}"
                # One that several of our units share is told once, with the lines of the first that it weakens.
                if name.endswith(".conf") and not (path in found and found[path].weakens):
                    lines = [*_assignments(_text(tree, path), section)]
                    judge = _weakens if section == "[Service]" else _opens
                    bad = tuple(f"{key}={value}" for key, value in lines if judge(key, value, ours.get(key)))
                    is_shared = not folder.endswith(f"/{unit}.d")
                    found[path] = DropIn(path, tuple(f"{k}={v}" for k, v in lines), bad, is_shared)
    return list(found.values())


def _section(unit: str) -> str:
    return "[Socket]" if unit.endswith(".socket") else "[Service]"


def _text(tree: Tree, path: str) -> str:
    """What systemd reads: a link is followed, as these folders are root's alone."""
    try:
        with open(tree.real(path), encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20) if os.path.isfile(tree.real(path)) else ""
    except OSError:
        return ""


def _assignments(text: str, wanted: str) -> Iterator[tuple[str, str]]:
    """Names and values of one section, such as `[Service]`."""
    section = ""
    for line in map(str.strip, text.replace("\\\n", " ").splitlines()):
        if line.startswith("["):
            section = line
        elif section == wanted and "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            yield key.strip(), value.strip()


def _weakens(key: str, value: str, ours: list[str] | None) -> bool:
    if key.startswith("Exec") and value.startswith(_OUTSIDE):
        return True
    if key == "Environment":
        return "LD_" in value
    if key in _POWERS:
        return value.lower() not in ("", *_FALSE)
    if key not in _SANDBOX:
        return False
    return _is_less(key, value) if ours is None else value not in ours and _is_less_than(key, value, ours[-1])


def _opens(key: str, value: str, ours: "list[str] | None") -> bool:
    """Whether a line of a socket lets in more callers than ours does, or runs a program: outside the sandbox."""
    if not value or value in (ours or ()):
        return False
    if key in _MODES:
        return not _is_within(value, (ours or ["0666"])[-1])
    return key.startswith((_LISTENS, "Exec")) or key in _OF_SOCKETS


def _is_within(value: str, ours: str) -> bool:
    try:
        return int(value, 8) | int(ours, 8) == int(ours, 8)
    except ValueError:
        return False


def _is_less(key: str, value: str) -> bool:
    """Whether a setting that our unit leaves to systemd gives the service more."""
    return value.lower() in _FALSE or key in ("User", "Group", "ExecStart", "AmbientCapabilities")


def _is_less_than(key: str, value: str, ours: str) -> bool:
    if key == "ReadWritePaths":
        return value != ""
    if key == "UMask":
        return not _is_mask_of(value, ours)
    if key in _LISTS:
        return not value.startswith(_DENIES)
    return not (ours.lower() in _TRUE and value.lower() in _TRUE)


def _is_mask_of(value: str, ours: str) -> bool:
    try:
        return int(value, 8) & int(ours, 8) == int(ours, 8)
    except ValueError:
        return False
