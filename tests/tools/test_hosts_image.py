"""The base image: what it is made of, what it holds, and what a killed or impossible build leaves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.hosts_control import ROOT, Control
from tools.hosts import recipe
from tools.hosts.image import debian_mirror, ensure_image, image_path
from tools.hosts.processes import wait_until


def test_the_machines_own_mirror_is_used():
    """Not that of security updates, nor another vendor's, nor a local folder."""
    targets = [
        "Docker|Docker|stable|https://docker.example/debian/",
        "Debian|Debian-Security|main|http://mirror.example/debian-security/",
        "Debian|Debian|contrib|http://mirror.example/contrib/",
        "Debian|Debian|main|file:/srv/debian/",
        "Debian|Debian|main|http://mirror.example/debian/",
    ]
    assert debian_mirror("\n".join(targets)) == "http://mirror.example/debian/"
    assert debian_mirror("") is None
    assert debian_mirror("Ubuntu|Ubuntu|main|http://mirror.example/ubuntu/\n") is None


def test_another_recipe_is_another_image(monkeypatch):
    """Whatever goes into the image goes into its name."""
    names = {recipe.digest("bookworm"), recipe.digest("trixie")}
    for part, changed in (
        ("PACKAGES", (*recipe.PACKAGES, "zstd")),
        ("MASKED_UNITS", recipe.MASKED_UNITS[1:]),
        ("DPKG_WHILE_BUILDING", ""),
        ("REVISION", recipe.REVISION + 1),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(recipe, part, changed)
            names.add(recipe.digest("bookworm"))
    assert len(names) == 6


@pytest.mark.hosts
@pytest.mark.parametrize("suite", ["bullseye", "bookworm", "trixie", "forky"])
def test_an_image_holds_what_hosts_share_and_nothing_of_one_host(suite):
    """No host key, no machine id, no packages' archives; the login, its sudo, and no needless unit."""
    image = ensure_image(suite, print)
    assert image == image_path(suite)
    assert list(image.glob("etc/ssh/ssh_host_*")) == []
    assert (image / "etc/machine-id").read_bytes() == b""
    assert (image / "etc/resolv.conf").read_bytes() == b""
    assert list(image.glob("var/cache/apt/archives/*.deb")) == []
    assert "deploy:x:1000:1000:" in (image / "etc/passwd").read_text()
    assert (image / "etc/sudoers.d/deploy").stat().st_mode & 0o777 == 0o440
    assert (image / "etc/systemd/system/apt-daily.timer").readlink() == Path("/dev/null")
    sshd = (image / "etc/ssh/sshd_config.d/10-fleet.conf").read_text()
    assert "PermitRootLogin no\nPasswordAuthentication no\n" in sshd


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 32 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.hosts
def test_a_disk_too_small_for_the_image_is_told_before_the_build(small_disk):
    """With what is free, what is needed, and where else it can go."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.hosts", "image", "--suite", "trixie"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(small_disk)},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "32 MB free, 700 MB needed; free some, or set XDG_CACHE_HOME" in done.stderr.splitlines()[-1]


@pytest.mark.hosts
def test_a_full_disk_is_told_and_the_fleet_can_still_be_removed(small_disk):
    """Whether it is full before a host is made, or at the first record."""
    control = Control(small_disk, "full", 240)
    control.ask("network", "up", order=control.network_order)
    refusal = control.refusal("host", "up", order=control.jump_order())
    assert "MB free, 200 MB needed; free some, or set AI_CLIENT_FLEET_LOCAL_DIR" in refusal
    control.ask("purge")
    fill = small_disk / "fill"
    with pytest.raises(OSError, match="No space left"):
        fill.write_bytes(bytes(40 * 2**20))
    assert "no space left on the disk; free some and run again" in control.refusal(
        "network", "up", order=control.network_order
    )
    control.ask("purge")
    assert list(small_disk.iterdir()) == [fill]


@pytest.mark.hosts
@pytest.mark.slow
def test_a_killed_build_leaves_no_process_no_mount_and_no_image(tmp_path):
    """The next run starts over, and takes what was downloaded from the cache."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    argv = [sys.executable, "-m", "tools.hosts", "image", "--suite", "trixie"]
    folder = tmp_path / "ai-client-fleet" / "images"
    for _attempt in range(2):
        build = subprocess.Popen(
            argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=ROOT, env=environment
        )
        try:
            assert wait_until(
                lambda: any(folder.glob("*.building/var/cache/apt/archives/*.deb")), timeout_s=120
            )
        finally:
            build.send_signal(signal.SIGKILL)
            build.wait(10)
        assert wait_until(lambda: not processes_of(tmp_path), timeout_s=10)
        assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
        left = {path.name for path in folder.iterdir() if path.is_dir()}
        assert left == {"trixie.debs", f"{image_path('trixie').name}.building"}


def processes_of(folder: Path) -> list[str]:
    """Processes that name the folder in their arguments."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
