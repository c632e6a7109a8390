"""A run that ends at any of its steps, and what the next one makes of it."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from applier.on_host.tree import Tree

from tests.ansible.folder_host import KEY_2, Rig, Wanted, artefact, new_rig

pytestmark = pytest.mark.slow


def kill_at_every_point(first: Wanted | None, wanted: Wanted, folder: Path) -> int:
    """Kills a run before each of its changes, on a new host every time; returns how many there were."""
    point = 0
    while True:
        point += 1
        rig = new_rig(folder / f"{point}" / "root")
        if first is not None:
            rig.ask(first)
        if not rig.ask_killed_at(wanted, point):
            return point - 1
        check_that_the_next_run_ends_it(rig, wanted, point)


def check_that_the_next_run_ends_it(rig: Rig, wanted: Wanted, point: int) -> None:
    """The next run leaves the host as an uninterrupted one does, and the one after it has nothing to do."""
    again = rig.ask(wanted)
    assert not again.failed, (point, again.message)
    assert rig.partial_files() == [], point
    assert not rig.path("/etc/ai-client/pending.json").exists(), point
    seen = rig.host.state["running"]["ai-client.service"]
    assert seen == {
        "release": f"releases/{wanted.digest}",
        "config": wanted.config,
        "key": f"{wanted.key}\n",
    }, point
    last = rig.ask(wanted)
    assert (last.failed, last.changed, last.changes) == (False, False, ()), point


def test_a_killed_first_run_is_ended_by_the_next(tmp_path: Path) -> None:
    """Killed with SIGKILL before every single step of a first deploy."""
    assert kill_at_every_point(None, Wanted(), tmp_path) > 20


def test_a_killed_change_is_ended_by_the_next(tmp_path: Path) -> None:
    """Key, configuration, units and release change at once; the service ends up with all of them at every point."""
    changed = Wanted(
        key=KEY_2,
        config="[api]\ntimeout = 7\n",
        packed=artefact(v="2"),
        unit_note="A=1\n",
        tcp=False,
        run="run-2",
    )
    assert kill_at_every_point(Wanted(), changed, tmp_path) > 10


def test_a_killed_rotation_is_ended_by_the_next(tmp_path: Path) -> None:
    """The key is on disk and the reload is not done: the next run, which finds no difference, still reloads."""
    assert kill_at_every_point(Wanted(), Wanted(key=KEY_2, run="run-2"), tmp_path) >= 3


def test_a_killed_decommission_is_ended_by_the_next(tmp_path: Path) -> None:
    """Nothing of ours is left, whenever the first one ended."""
    point = 0
    while True:
        point += 1
        rig = new_rig(tmp_path / f"{point}" / "root")
        empty = rig.files()
        rig.ask(Wanted())
        was_killed = rig.ask_killed_at(Wanted(mode="decommission"), point)
        rig.ask(Wanted(mode="decommission"))
        assert without_wants(rig.files()) == empty, point
        assert not rig.host.state["identity"]
        if not was_killed:
            break
    assert point > 10


def without_wants(files: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Without systemd's own folders of links, which may stay when they are empty."""
    return {name: seen for name, seen in files.items() if not name.endswith(".wants")}


def test_a_killed_rollback_is_ended_by_the_next_deploy(tmp_path: Path) -> None:
    """A bad release, killed on every step of the way back: deploying the good one again ends well."""
    good, bad = Wanted(), Wanted(packed=artefact(unhealthy="broken"), run="run-2")
    point = 0
    while True:
        point += 1
        rig = new_rig(tmp_path / f"{point}" / "root")
        rig.ask(good)
        if not rig.ask_killed_at(bad, point):
            break
        check_that_the_next_run_ends_it(rig, good, point)
    assert point > 5


def test_a_bad_release_killed_before_its_verdict_goes_back_on_the_next_run(tmp_path: Path) -> None:
    """The next run finds no difference, sees that the last one did not end, and rolls back as that would have."""
    good, bad = Wanted(), Wanted(packed=artefact(unhealthy="broken"), run="run-2")
    counted, rig = new_rig(tmp_path / "counted"), new_rig(tmp_path / "killed")
    for one in (counted, rig):
        one.ask(good)
    host = counted.host
    counted.ask(bad, host)
    assert rig.ask_killed_at(bad, host.points.index("conclude") + 1)
    assert str(rig.path("/opt/ai-client/current").readlink()) == f"releases/{bad.digest}"
    answer = rig.ask(bad)
    assert (answer.failed, answer.rolled_back) == (True, True)
    assert str(rig.path("/opt/ai-client/current").readlink()) == f"releases/{good.digest}"


@pytest.mark.parametrize("nth", range(1, 12))
def test_a_full_disk_fails_clearly_and_leaves_what_was_there(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """The n-th write finds no space: what was there is whole, nothing partial stays, the next run ends it."""
    rig.ask(Wanted())
    changed = Wanted(key=KEY_2, config="[api]\ntimeout = 7\n", packed=artefact(v="2"), run="run-2")
    left = iter(range(1, 1000))
    real = Tree.write

    def write(tree: Tree, path: str, content: bytes, *, gid: int, mode: int) -> None:
        if next(left) == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), tree.real(path))
        real(tree, path, content, gid=gid, mode=mode)

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "write", write)
        answer = rig.ask(changed)
    if next(left) <= nth:
        return
    assert answer.failed
    assert "No space left on device" in answer.message
    assert rig.partial_files() == []
    check_that_the_next_run_ends_it(rig, changed, nth)


def test_a_release_that_does_not_fit_leaves_the_old_one_running(rig: Rig) -> None:
    """A real disk that is full half way through the unpacking: the error says so, and nothing of it stays."""
    rig.ask(Wanted())
    releases = rig.path("/opt/ai-client/releases")
    with small_disk(releases):
        answer = rig.ask(Wanted(packed=artefact(big="x" * 3_000_000), run="run-2"))
        assert list(releases.iterdir()) == []
    assert answer.failed
    assert "is the disk full?" in answer.message
    assert rig.host.state["running"]["ai-client.service"]["release"] == f"releases/{Wanted().digest}"
    assert not rig.ask(Wanted()).failed


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Lays an empty disk of one megabyte over a folder."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", str(folder)]
    subprocess.run(mount, check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)
