"""Overlays, and the removal of folders that may still have something mounted in them."""

import os
import shutil
from pathlib import Path

from tools.hosts.commands import run
from tools.hosts.errors import HostsError
from tools.hosts.places import HostPlaces


def is_mounted(path: Path) -> bool:
    """Whether something is mounted exactly there."""
    return path.resolve() in mounted_below(path)


def mounted_below(folder: Path) -> list[Path]:
    """Mount points at or below a folder, the deepest first."""
    folder = folder.resolve()
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(_unescaped(line.split()[4]))
        if point.is_relative_to(folder):
            found.append(point)
    return sorted(found, key=lambda point: len(point.parts), reverse=True)


def mount_overlay(host: HostPlaces, image: Path) -> None:
    """Lays the host's own files over its image."""
    layers = f"lowerdir={image},upperdir={host.upper},workdir={host.work}"
    run(
        ["mount", "-t", "overlay", f"ai-client-fleet-{host.name}", "-o", layers, str(host.root)],
        remedy="keep the fleet's folder on a local file system that can hold overlays (ext4, xfs, btrfs)",
    )


def remove_folder(folder: Path) -> None:
    """Unmounts all that lies in a folder, then removes it; never reaches into a mounted file system."""
    for point in mounted_below(folder):
        run(["umount", str(point)], remedy="end what still uses it, then purge the fleet")
    left = mounted_below(folder)
    if left:
        raise HostsError(str(left[0]), "is still mounted", "end what uses it, then purge the fleet")
    if folder.exists():
        shutil.rmtree(folder)


def _unescaped(point: str) -> str:
    """The kernel writes blanks and backslashes of a path as octal."""
    return os.fsdecode(point.encode().decode("unicode_escape").encode("latin-1"))
