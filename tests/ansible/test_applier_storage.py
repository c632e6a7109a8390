"""What a host's file systems stand in the way of: said in the preview, with the path, the file system, and a remedy."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.ansible.folder_host import KEY_2, Rig, Wanted, artefact


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Lays a file system of one megabyte over a folder; what was in it is in it."""
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    status = folder.stat()
    _mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    try:
        os.chown(folder, status.st_uid, status.st_gid)
        folder.chmod(status.st_mode & 0o7777)
        for name, content in kept.items():
            (folder / name).write_bytes(content)
        for option in options:
            _mount("-o", f"remount,{option}", str(folder))
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, timeout=30)


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """`chattr +i`."""
    subprocess.run(["chattr", "+i", str(path)], check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True, timeout=30)


def refused(rig: Rig, wanted: Wanted) -> str:
    """What the preview and the run say, which is the same; nothing is changed by either."""
    before, commands = rig.files(), rig.host.state["commands"]
    look, run = rig.ask(Wanted(**{**vars(wanted), "check": True})), rig.ask(wanted)
    assert look.failed
    assert (run.failed, run.changed) == (True, False)
    assert look.message == run.message
    assert (rig.files(), rig.host.state["commands"]) == (before, commands)
    return run.message


CHANGED = Wanted(key=KEY_2, config="[api]\ntimeout = 7\n", run="run-2")


def test_a_full_file_system_is_named_before_anything_is_changed(rig: Rig) -> None:
    """/etc/ai-client on a file system of its own, full to the last byte."""
    rig.ask(Wanted())
    home = rig.path("/etc/ai-client")
    with mounted(home):
        with (home / "fill").open("wb", buffering=0) as fill, suppress(OSError):
            while fill.write(bytes(4096)):
                pass
        message = refused(rig, CHANGED)
    assert str(home) in message
    assert "KiB free" in message
    assert "free space there" in message


def test_a_release_that_will_not_fit_is_said_in_the_preview(rig: Rig) -> None:
    """Its packed size is known: what it needs is compared with what is free."""
    rig.ask(Wanted())
    packed = artefact(big="x" * 400_000)
    wanted = Wanted(packed=packed, run="run-2")
    tree = {"digest": wanted.digest, "glibc_min": "2.17", "size": 5 << 20}
    with mounted(rig.path("/opt/ai-client/releases")):
        message = refused(rig, Wanted(packed=packed, run="run-2", more={"trees": {"cp311-x86_64": tree}}))
    assert "opt/ai-client/releases" in message
    assert "needs" in message


def test_a_read_only_file_system_is_named(rig: Rig) -> None:
    """As after a disk's errors."""
    rig.ask(Wanted())
    with mounted(rig.path("/etc/ai-client"), "ro"):
        message = refused(rig, CHANGED)
    assert "/etc/ai-client/key" in message
    assert "mounted read-only" in message
    assert "mount it read-write" in message


def test_a_file_system_that_starts_no_program_is_named(rig: Rig) -> None:
    """/opt as some harden it (marcominetti/node-memwatch issue 11); elsewhere noexec is nobody's business."""
    with mounted(rig.path("/opt"), "noexec"):
        message = refused(rig, Wanted())
    assert "opt is mounted noexec, and the service is started from it; mount it with exec" in message
    with mounted(rig.path("/var/cache"), "noexec"), mounted(rig.path("/etc"), "noexec"):
        rig.path("/etc/systemd/system").mkdir(parents=True)
        assert not rig.ask(Wanted()).failed


def test_an_immutable_file_is_named_with_the_command_that_frees_it(rig: Rig) -> None:
    """`chattr +i` on a file that has to change; on others it is nobody's business."""
    rig.ask(Wanted())
    with immutable(rig.path("/etc/ai-client/ai-client.conf")):
        message = refused(rig, CHANGED)
        assert "chattr -i -a /etc/ai-client/ai-client.conf" in message
        assert not rig.ask(Wanted(key=KEY_2, run="run-3")).failed


def test_an_immutable_folder_is_named(rig: Rig) -> None:
    """Nothing can be renamed in it."""
    rig.ask(Wanted())
    with immutable(rig.path("/etc/ai-client")):
        assert "chattr -i -a /etc/ai-client," in refused(rig, CHANGED)


@pytest.mark.parametrize("folder", ["/etc/ai-client", "/var/cache/ai-client"])
def test_a_folder_that_is_a_link_is_said_in_the_preview(rig: Rig, tmp_path: Path, folder: str) -> None:
    """With where it leads, and what to do."""
    (tmp_path / "elsewhere").mkdir()
    rig.path(folder).symlink_to(tmp_path / "elsewhere")
    message = refused(rig, Wanted())
    assert folder in message
    assert str(tmp_path / "elsewhere") in message
    assert "move it away" in message


def test_a_link_above_our_folders_is_nothing_special(rig: Rig, tmp_path: Path) -> None:
    """/opt and /var/log on another disk, reached by a link, as many hosts have them."""
    for path in ("/opt", "/var/log"):
        rig.path(path).rmdir()
        (tmp_path / path[1:].replace("/", "-")).mkdir()
        rig.path(path).symlink_to(tmp_path / path[1:].replace("/", "-"))
    assert not rig.ask(Wanted()).failed
    assert not rig.ask(Wanted(check=True)).changed
    assert not rig.ask(Wanted(mode="decommission")).failed


def test_all_that_stands_in_the_way_is_told_at_once(rig: Rig, tmp_path: Path) -> None:
    """Not one a run."""
    rig.path("/var/log/ai-client").symlink_to(tmp_path)
    rig.path("/opt/ai-client").write_text("a file")
    message = refused(rig, Wanted())
    assert "2 obstacles are in the way" in message
    assert "/var/log/ai-client" in message
    assert "/opt/ai-client" in message


def test_a_login_with_umask_077_leaves_nothing_that_the_service_cannot_read(rig: Rig) -> None:
    """Bytecode above all: without it every start takes twice as long, and nobody sees why."""
    before = os.umask(0o077)
    try:
        assert not rig.ask(Wanted()).failed
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    release = rig.path(f"/opt/ai-client/releases/{Wanted().digest}")
    modes = {p.stat().st_mode & 0o777 for p in release.rglob("*") if p.is_file()}
    assert modes == {0o644}
    assert {p.stat().st_mode & 0o777 for p in release.rglob("*") if p.is_dir()} == {0o755}
    wants = rig.path("/etc/systemd/system/multi-user.target.wants")
    assert wants.stat().st_mode & 0o777 == 0o755


def test_a_path_without_programs_is_not_used(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """sudo with secure_path=/nothing: programs are found where systems have them."""
    monkeypatch.setenv("PATH", "/nothing")
    assert not rig.ask(Wanted()).failed


def test_a_folder_with_blanks_in_its_name(rig: Rig) -> None:
    """Folders are what the variables say, blanks included."""
    rig.path("/data of ours").mkdir()
    wanted = Wanted(cache_dir="/data of ours/the cache")
    assert not rig.ask(wanted).failed
    assert rig.path("/data of ours/the cache").is_dir()
    assert not rig.ask(Wanted(cache_dir="/data of ours/the cache", check=True)).changed
    rig.ask(Wanted(mode="decommission"))
    assert list(rig.path("/data of ours").iterdir()) == []
