"""One run of the applier on a host that is a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ansible.folder_host import KEY, KEY_2, Rig, Wanted, artefact, new_rig


def test_a_first_run_lays_everything_down_and_starts_the_service(rig: Rig) -> None:
    """Config, key, release, launcher, units and marker; the service runs with exactly these."""
    wanted = Wanted()
    response = rig.ask(wanted)
    assert (response.failed, response.changed, response.message) == (False, True, "")
    running = rig.host.state["running"]
    assert running["ai-client.service"] == {
        "release": f"releases/{wanted.digest}",
        "config": wanted.config,
        "key": f"{KEY}\n",
    }
    assert {"ai-client.socket", "ai-client-tcp.socket"} <= set(running)
    key = rig.path("/etc/ai-client/key").stat()
    assert (key.st_mode & 0o7777, key.st_uid, key.st_gid) == (0o640, 0, 4712)
    assert rig.path("/etc/systemd/system/multi-user.target.wants/ai-client.service").is_symlink()
    assert json.loads(rig.path("/etc/ai-client/claim.json").read_text())["claim"] == "fleet/test/host-01"
    assert list(rig.path("/opt/ai-client/current/lib/__pycache__").iterdir())


def test_a_look_without_a_build_takes_the_installed_release_for_the_wanted_one(rig: Rig) -> None:
    """Everything else is compared as ever, a damaged release too, and the reader is told."""
    unbuilt = Wanted(check=True, more={"version": "", "trees": {}})
    fresh = rig.ask(unbuilt)
    assert not fresh.failed
    assert "/opt/ai-client/releases/not-built-yet" in {change.path for change in fresh.changes}
    assert "/etc/systemd/system/ai-client.service" in {change.path for change in fresh.changes}
    assert not rig.path("/opt/ai-client").exists()

    rig.ask(Wanted())
    after = rig.ask(unbuilt)
    assert (after.changed, after.changes) == (False, ())
    assert any("has not built its own" in note for note in after.notes)
    damaged = next(rig.path("/opt/ai-client/current").rglob("*.py"))
    damaged.write_text("print()\n")
    assert [change.path for change in rig.ask(unbuilt).changes] == [
        f"/opt/ai-client/releases/{Wanted().digest}"
    ]
    assert rig.ask(Wanted(more={"version": "", "trees": {}})).failed


def test_a_second_run_changes_nothing_and_runs_nothing(rig: Rig) -> None:
    """With nothing to do no file is touched and no command given."""
    rig.ask(Wanted())
    files, commands = rig.files(), rig.host.state["commands"]
    host = rig.host
    response = rig.ask(Wanted(run="run-2"), host)
    assert (response.changed, response.changes, response.actions) == (False, (), ())
    assert rig.files() == files
    assert host.state["commands"] == commands
    assert host.points == []


def test_check_mode_tells_all_and_writes_nothing(rig: Rig) -> None:
    """The plan of a new host names every path; the host stays as it is."""
    before = rig.files()
    response = rig.ask(Wanted(check=True))
    assert response.changed
    paths = {change.path for change in response.changes}
    assert {"/etc/ai-client/ai-client.conf", "/etc/ai-client/key", "/opt/ai-client/current"} <= paths
    assert rig.files() == before
    assert rig.host.state["commands"] == []


def test_a_new_key_touches_the_key_file_alone_and_reloads(rig: Rig) -> None:
    """A rotation restarts nothing, and the answer shows fingerprints, never keys."""
    rig.ask(Wanted())
    before, commands = rig.files(), rig.host.state["commands"]
    response = rig.ask(Wanted(key=KEY_2, run="run-2"))
    changed = {name for name, seen in rig.files().items() if before.get(name) != seen}
    assert changed == {f"etc/ai-client/{name}" for name in ("key", "releases.jsonl", "seal", "sealed.json")}
    assert rig.host.state["commands"][len(commands) :] == ["reload"]
    assert rig.host.state["running"]["ai-client.service"]["key"] == f"{KEY_2}\n"
    text = response.encode()
    assert KEY not in text
    assert KEY_2 not in text
    assert [change.path for change in response.changes] == ["/etc/ai-client/key"]
    assert response.changes[0].before.startswith("key ")


def test_a_new_configuration_reloads_and_a_new_release_is_handed_over_to(rig: Rig) -> None:
    """The least effect that is needed; nothing restarts."""
    rig.ask(Wanted())
    commands = len(rig.host.state["commands"])
    rig.ask(Wanted(config="[api]\ntimeout = 31\n"))
    assert rig.host.state["commands"][commands:] == ["reload"]
    commands += 1
    newer = Wanted(config="[api]\ntimeout = 31\n", packed=artefact(note="2"))
    assert rig.ask(newer).actions == ("hand ai-client.service over to the release",)
    assert rig.host.state["commands"][commands:] == ["reload"]
    assert rig.host.state["running"]["ai-client.service"]["release"] == f"releases/{newer.digest}"


def test_a_release_that_cannot_hand_over_is_restarted(rig: Rig) -> None:
    """An older client says nothing of the new release, or that it takes a restart."""
    rig.ask(Wanted(packed=artefact(**{"hands-nothing-over": "x"})))
    commands = len(rig.host.state["commands"])
    newer = Wanted(packed=artefact(v="2"), run="run-2")
    rig.ask(newer)
    assert rig.host.state["commands"][commands:] == ["reload", "restart ai-client.service"]
    assert rig.host.state["running"]["ai-client.service"]["release"] == f"releases/{newer.digest}"


def test_a_release_that_was_mended_is_restarted(rig: Rig) -> None:
    """The link is the same: the process can't know that its files are others now."""
    rig.ask(Wanted())
    commands = len(rig.host.state["commands"])
    (rig.path("/opt/ai-client/current/lib") / "mod.py").write_text("X = 2\n")
    rig.ask(Wanted())
    assert rig.host.state["commands"][commands:] == ["restart ai-client.service"]


def test_drift_is_named_and_mended(rig: Rig) -> None:
    """A byte, a mode, a stopped, disabled or masked unit, a changed tree: each is seen and put right."""
    rig.ask(Wanted())
    good = rig.files()
    rig.path("/etc/ai-client/ai-client.conf").write_text("[api]\ntimeout = 3\n")
    rig.path("/etc/ai-client/key").chmod(0o644)
    rig.host.stop("ai-client.service")
    rig.path("/etc/systemd/system/multi-user.target.wants/ai-client.service").unlink()
    unit = rig.path("/etc/systemd/system/ai-client.socket")
    unit.unlink()
    unit.symlink_to("/dev/null")
    (rig.path("/opt/ai-client/current/lib") / "mod.py").write_text("X = 2\n")
    response = rig.ask(Wanted(check=True))
    named = {change.path for change in response.changes}
    assert {
        "/etc/ai-client/ai-client.conf",
        "/etc/ai-client/key",
        "unit ai-client.service",
        "/etc/systemd/system/multi-user.target.wants/ai-client.service",
        "/etc/systemd/system/ai-client.socket",
        f"/opt/ai-client/releases/{Wanted().digest}",
    } <= named
    assert not rig.ask(Wanted()).failed
    mended = rig.files()
    records = {name for name in good if name.endswith((".jsonl", ".json", "/seal"))}
    assert {n: s for n, s in mended.items() if n not in records} == {
        n: s for n, s in good.items() if n not in records
    }
    assert not rig.ask(Wanted()).changed


@pytest.mark.parametrize("unit", ["ai-client.service", "ai-client.socket", "ai-client-tcp.socket"])
def test_any_unit_that_was_stopped_runs_again(rig: Rig, unit: str) -> None:
    """Also a socket whose service still runs, which systemd refuses to start as it is."""
    rig.ask(Wanted())
    rig.host.stop(unit)
    assert [change.path for change in rig.ask(Wanted(check=True)).changes] == [f"unit {unit}"]
    assert not rig.ask(Wanted()).failed
    assert unit in rig.host.state["running"]
    assert not rig.ask(Wanted()).changed


def test_a_restored_backup_of_a_release_is_no_drift(rig: Rig) -> None:
    """Other times and inodes with the same bytes and rights are the same release."""
    rig.ask(Wanted())
    file = rig.path("/opt/ai-client/current/lib/mod.py").resolve()
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    assert not rig.ask(Wanted(check=True)).changed


@pytest.mark.parametrize("part", ["secrets", "config"])
def test_a_part_alone_reaches_the_running_service(rig: Rig, part: str) -> None:
    """`--tags secrets` sends no units, and yet the service that runs reads its key again."""
    rig.ask(Wanted())
    changed = Wanted(key=KEY_2, config="[api]\ntimeout = 31\n", parts=(part, "verify"))
    assert rig.ask(changed).actions == ("reload ai-client.service",)
    assert rig.host.state["commands"][-1] == "reload"
    assert (rig.host.state["running"]["ai-client.service"]["key"] == f"{KEY_2}\n") == (part == "secrets")


def test_a_part_alone_ends_what_a_killed_run_left(tmp_path: Path) -> None:
    """`--tags secrets` after a deploy that was killed: what that owed is done, and no socket is lost."""
    changed = Wanted(config="[api]\ntimeout = 7\n", packed=artefact(v="2"), unit_note="A=1\n", run="run-2")
    point = 0
    while True:
        point += 1
        rig = new_rig(tmp_path / f"{point}" / "root")
        rig.ask(Wanted())
        if not rig.ask_killed_at(changed, point):
            break
        assert not rig.ask(Wanted(key=KEY_2, parts=("secrets", "verify"))).failed
        assert set(rig.host.state["running"]) == {
            "ai-client.service",
            "ai-client.socket",
            "ai-client-tcp.socket",
        }
        assert not rig.ask(Wanted(key=KEY_2, parts=("secrets", "verify"))).changed
        assert not rig.ask(changed).failed
    assert point > 5


def test_each_part_does_its_own_and_no_more(rig: Rig) -> None:
    """`secrets` alone lays no config down; `deploy` alone starts nothing that has no config."""
    rig.ask(Wanted(parts=("secrets",)))
    assert rig.path("/etc/ai-client/key").exists()
    assert not rig.path("/etc/ai-client/ai-client.conf").exists()
    rig.ask(Wanted(parts=("deploy",)))
    assert rig.host.state["running"] == {}
    rig.ask(Wanted(parts=("config",)))
    response = rig.ask(Wanted())
    assert (response.failed, rig.host.state["running"] != {}) == (False, True)


def test_a_port_of_zero_takes_the_tcp_socket_away(rig: Rig) -> None:
    """An obsolete unit is stopped, disabled and removed."""
    rig.ask(Wanted())
    rig.ask(Wanted(tcp=False))
    assert not rig.path("/etc/systemd/system/ai-client-tcp.socket").exists()
    assert not rig.path("/etc/systemd/system/sockets.target.wants/ai-client-tcp.socket").is_symlink()
    assert "ai-client-tcp.socket" not in rig.host.state["running"]
    assert not rig.ask(Wanted(tcp=False)).changed


def test_the_next_key_comes_and_goes(rig: Rig) -> None:
    """Two keys can overlap; an empty variable removes the second."""
    rig.ask(Wanted(key_next=KEY_2))
    assert rig.path("/etc/ai-client/key.next").read_text() == f"{KEY_2}\n"
    rig.ask(Wanted())
    assert not rig.path("/etc/ai-client/key.next").exists()


def test_old_releases_go_but_for_two(rig: Rig) -> None:
    """The present one and two earlier stay."""
    wanted = [Wanted(packed=artefact(note=str(number)), run=f"run-{number}") for number in range(5)]
    for one in wanted:
        assert not rig.ask(one).failed
    kept = {path.name for path in rig.path("/opt/ai-client/releases").iterdir() if path.is_dir()}
    assert kept == {one.digest for one in wanted[2:]}


def test_two_runs_at_once_do_not_meet(rig: Rig) -> None:
    """The second run is refused and says why."""
    host = rig.host
    answers = []
    host.reached = lambda point: answers.append(rig.ask(Wanted(check=True)))  # type: ignore[method-assign]
    assert not rig.ask(Wanted(), host).failed
    assert answers
    assert all("being changed by another run" in answer.message for answer in answers)
