"""The base image: one Debian per suite, made once, shared by all hosts under their overlays."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tools.hosts import recipe
from tools.hosts.commands import child_environment, run, search_path
from tools.hosts.errors import HostsError
from tools.hosts.files import locked, write_text
from tools.hosts.inputs import LOGIN
from tools.hosts.mounts import remove_folder
from tools.hosts.places import images_folder
from tools.hosts.prerequisites import TO_BUILD, require_programs, require_space
from tools.hosts.suites import SUITES

NEEDED_MB = 700
BUILD_TIMEOUT_S = 1800.0
PROGRESS_EVERY_S = 5.0
# Ends with this run however that ends, and takes its mounts along: both lie in namespaces of their own.
_CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
)
_TARGET_FORM = "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)"
_REMEDY = "run again: what was downloaded is kept"

Say = Callable[[str], None]


def image_path(suite: str) -> Path:
    """Where the image of today's recipe lies, made or not."""
    return images_folder(os.environ, Path.home()) / f"{suite}-{recipe.digest(suite)}"


def ensure_image(suite: str, say: Say) -> Path:
    """Makes the image where it is missing; a second run waits for the first."""
    image = image_path(suite)
    if image.is_dir():
        return image
    require_programs(TO_BUILD, say, path=search_path(os.environ))
    with locked(image.with_name(f"{image.name}.lock"), timeout_s=BUILD_TIMEOUT_S, say=say):
        if not image.is_dir():
            require_space(image.parent, needed_mb=NEEDED_MB, variable="XDG_CACHE_HOME")
            _build(suite, image, say)
    return image


def debian_mirror(targets: str) -> str | None:
    """The mirror that this machine's own apt uses for Debian; None: debootstrap's default.

    `targets` is what `apt-get indextargets` tells in `_TARGET_FORM`.
    """
    for line in targets.splitlines():
        *kind, uri = line.split("|")
        if kind == ["Debian", "Debian", "main"] and uri.startswith(("http:", "https:")):
            return uri
    return None


def _build(suite: str, image: Path, say: Say) -> None:
    started = time.monotonic()
    building = image.with_name(f"{image.name}.building")
    remove_folder(building)
    say(f"image {suite}: building it, once (about a minute)")
    write_dpkg_config(building)
    debs = image.with_name(f"{suite}.debs")
    debs.mkdir(exist_ok=True)
    mirror = debian_mirror(_apt_targets())
    argv = [
        "debootstrap",
        "--variant=minbase",
        f"--cache-dir={debs}",
        f"--include={','.join(recipe.packages(suite))}",
    ]
    # An empty mirror is the script's own; an empty script is the suite's.
    source = (mirror or "", SUITES[suite].script)
    _follow(suite, [*argv, suite, str(building), *source], say)
    _finish(suite, building)
    run(["sync", "--file-system", str(building)], timeout_s=300, remedy=_REMEDY)
    building.rename(image)
    say(f"image {suite}: ready after {time.monotonic() - started:.0f} s")


def write_dpkg_config(building: Path) -> None:
    """Must be there before the first package is unpacked."""
    folder = building / "etc" / "dpkg" / "dpkg.cfg.d"
    folder.mkdir(parents=True)
    write_text(folder / "building", recipe.DPKG_WHILE_BUILDING, mode=0o644)


def _finish(suite: str, building: Path) -> None:
    contained_chroot = [*_CONTAINED, "chroot", str(building)]
    run(
        [*contained_chroot, "useradd", "--create-home", "--shell", "/bin/bash", "--uid", "1000", LOGIN],
        remedy=_REMEDY,
    )
    for pattern in (
        "etc/ssh/ssh_host_*",
        "var/cache/apt/archives/*.deb",
        "var/log/*.log",
        "etc/dpkg/dpkg.cfg.d/building",
    ):
        for path in building.glob(pattern):
            path.unlink()
    for name, (mode, text) in recipe.files(suite).items():
        (building / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(building / name, text, mode=mode)
    for name, target in recipe.links(suite).items():
        (building / name).symlink_to(target)
    for unit in recipe.MASKED_UNITS:
        link = building / "etc" / "systemd" / "system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    run([*contained_chroot, "ssh-keygen", "-A"], remedy=_REMEDY)
    run([*contained_chroot, "sh", "-c", "mkdir -p /run/sshd && sshd -t && visudo -cq"], remedy=_REMEDY)
    for path in building.glob("etc/ssh/ssh_host_*"):
        path.unlink()


def _follow(suite: str, argv: Sequence[str], say: Say) -> None:
    """Runs debootstrap; tells now and then what it is at, and at the end what it complained of."""
    with subprocess.Popen(
        [*_CONTAINED, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=child_environment(os.environ),
    ) as child:
        tail = list(_told(child.stdout or (), lambda line: say(f"image {suite}: {line}")))[-20:]
    if child.returncode:
        complaints = [line for line in tail if line.startswith(("E:", "W:")) or "No space" in line] or tail
        reason = complaints[-1] if complaints else f"debootstrap ended with {child.returncode}"
        raise HostsError(f"image {suite}", reason.removeprefix("E: "), _REMEDY)


def _told(lines: Iterable[str], say: Say) -> Iterator[str]:
    last_at, last_phase = 0.0, ""
    for line in map(str.strip, lines):
        yield line
        phase = re.match(r"I: (\w+)", line)
        if phase is None:
            continue
        now = time.monotonic()
        waited_s = now - last_at
        if waited_s > PROGRESS_EVERY_S or (phase[1] != last_phase and waited_s > PROGRESS_EVERY_S / 5):
            last_at, last_phase = now, phase[1]
            say(line.removeprefix("I: "))


def _apt_targets() -> str:
    try:
        return run(["apt-get", "indextargets", "--format", _TARGET_FORM, "Identifier: Packages"], remedy="")
    except HostsError:
        return ""
