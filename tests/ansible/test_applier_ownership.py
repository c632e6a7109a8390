"""What is ours on a host is known by record: what others have there stays, whatever its name."""

from __future__ import annotations

import json
import os

import pytest

from tests.ansible.folder_host import UID, Rig, Wanted, varied
from tests.ansible.test_applier_claims import certificate

UNITS = "/etc/systemd/system"
STORE = "/usr/local/share/ca-certificates"


def record(rig: Rig) -> dict[str, list[str]]:
    laid: dict[str, list[str]] = json.loads(rig.path("/etc/ai-client/claim.json").read_text())["laid"]
    return laid


def test_the_marker_lists_what_was_laid_down(rig: Rig) -> None:
    """Accounts, folders, files, units and certificates; what goes later stays on record."""
    rig.ask(Wanted(ca_bundle=certificate(1)))
    laid = record(rig)
    assert (laid["users"], laid["groups"]) == (["ai-client"], ["ai-client"])
    assert laid["units"] == ["ai-client-tcp.socket", "ai-client.service", "ai-client.socket"]
    assert {"/etc/ai-client", "/opt/ai-client", "/var/log/ai-client"} <= set(laid["folders"])
    assert {"/etc/ai-client/key", "/etc/ai-client/ai-client.conf"} <= set(laid["files"])
    assert len(laid["certificates"]) == 1
    rig.ask(Wanted(tcp=False))
    assert record(rig) == laid


def test_a_persons_account_is_refused_and_nothing_is_done(rig: Rig) -> None:
    """In the preview already; the message says how to go on."""
    rig.host.add_person()
    before = rig.files()
    for wanted in (Wanted(check=True), Wanted()):
        answer = rig.ask(wanted)
        assert answer.failed
        assert "was not made by this project" in answer.message
        assert "ai_adopt_account" in answer.message
    assert rig.files() == before


def test_an_adopted_account_runs_the_service_and_is_never_removed(rig: Rig) -> None:
    """By declaration; also a later run without it, and a decommission, leave the account."""
    rig.host.add_person()
    adopting = Wanted(more={"adopts_account": True})
    assert not rig.ask(adopting).failed
    assert record(rig)["users"] == []
    assert not rig.ask(Wanted(run="run-2")).failed
    gone = rig.ask(Wanted(mode="decommission"))
    assert not gone.failed
    assert "user ai-client" not in {change.path for change in gone.changes}
    assert rig.host.state["identity"]
    assert not rig.path("/etc/ai-client").exists()


def test_an_account_that_an_earlier_release_took_over_is_not_removed(rig: Rig) -> None:
    """Its marker has no record: an account with a home of its own is nobody's that we made."""
    rig.ask(Wanted())
    forget_record(rig)
    rig.host.add_person()
    rig.ask(Wanted(mode="decommission"))
    assert rig.host.state["identity"]


def forget_record(rig: Rig) -> None:
    """The marker as a program from before the record wrote it."""
    marker = rig.path("/etc/ai-client/claim.json")
    raw = json.loads(marker.read_text())
    marker.write_text(json.dumps({name: raw[name] for name in ("claim", "owner", "paths")}))


def test_a_host_from_before_the_record_gets_one_and_is_given_back_whole(rig: Rig) -> None:
    """The upgrade writes the marker and nothing else; a decommission without it leaves nothing."""
    before = rig.files()
    rig.ask(Wanted(ca_bundle=certificate(1)))
    commands = rig.host.state["commands"]
    forget_record(rig)
    assert [change.path for change in rig.ask(Wanted(ca_bundle=certificate(1))).changes] == [
        "/etc/ai-client/claim.json"
    ]
    assert rig.host.state["commands"] == commands
    forget_record(rig)
    rig.ask(Wanted(mode="decommission"))
    assert rig.files() == before
    assert not rig.host.state["identity"]


THEIRS = {
    f"{UNITS}/ai-client-exporter.service": "[Service]\nExecStart=/usr/bin/exporter\n",
    f"{UNITS}/ai-client-exporter.socket": "[Socket]\n",
    f"{STORE}/ai-client-team.crt": certificate(9),
    "/etc/ai-client/notes.txt": "ours since 2019\n",
    "/etc/ai-client/exporter.d/a.conf": "x",
    "/opt/ai-client/team/tool": "#!/bin/sh\n",
    "/opt/ai-client/bin/team-tool": "#!/bin/sh\n",
    "/opt/ai-client/releases/README": "x",
    f"{UNITS}/ai-client.service.d/limits.conf": "[Service]\nLimitNOFILE=1000\n",
}


@pytest.mark.parametrize("since", ["before the first deploy", "later"])
def test_what_others_have_beside_ours_stays(rig: Rig, since: str) -> None:
    """Units, certificates, files, drop-ins: no drift, not stopped, not removed; the answer names what was left."""
    wanted = Wanted(ca_bundle=certificate(1))
    if since == "later":
        rig.ask(wanted)
    for path, text in THEIRS.items():
        rig.path(path).parent.mkdir(parents=True, exist_ok=True)
        rig.path(path).write_text(text)
    rig.host.systemctl("daemon-reload")
    rig.host.systemctl("start", "ai-client-exporter.service") if since == "later" else None
    rig.ask(wanted)
    look = rig.ask(varied(wanted, check=True))
    assert (look.failed, look.changed) == (False, False)
    gone = rig.ask(Wanted(mode="decommission"))
    assert not gone.failed
    for path, text in THEIRS.items():
        assert rig.path(path).read_text() == text
    assert "/etc/ai-client/notes.txt" in gone.message
    assert not rig.path("/etc/ai-client/key").exists()
    assert not rig.path("/opt/ai-client/bin/ai-client").exists()
    assert {path.name for path in rig.path(STORE).iterdir()} == {"ai-client-team.crt"}
    home = rig.path("/etc/ai-client").stat()
    assert (home.st_uid, home.st_gid) == (0, 0)
    assert ("ai-client-exporter.service" in rig.host.state["running"]) == (since == "later")
    again = rig.ask(Wanted(mode="decommission"))
    assert (again.failed, again.changed) == (False, False)


@pytest.mark.parametrize("others", [False, True])
def test_keys_of_other_upstreams_go_with_the_host(rig: Rig, others: bool) -> None:
    """Each is a file of its own in a folder of ours; a key of somebody else's beside them stays."""
    before = rig.files()
    rig.ask(Wanted(more={"upstream_keys": {"mine": {"key": "k" * 20, "next": "n" * 20}}}))
    assert rig.path("/etc/ai-client/keys/mine.next").exists()
    if others:
        rig.path("/etc/ai-client/keys/theirs").write_text("x")
    assert not rig.ask(Wanted(mode="decommission")).failed
    assert not rig.path("/etc/ai-client/keys/mine").exists()
    assert not rig.path("/etc/ai-client/keys/mine.next").exists()
    assert rig.path("/etc/ai-client/keys/theirs").exists() == others
    assert (rig.files() == before) == (not others)


def test_files_of_other_accounts_in_the_services_folders_stay(rig: Rig) -> None:
    """What the service wrote goes; a batch job that a person put into the spool is that person's."""
    rig.ask(Wanted())
    mine, theirs = rig.path("/var/cache/ai-client/spool/mine"), rig.path("/var/cache/ai-client/spool/theirs")
    mine.parent.mkdir()
    for path, uid in ((mine.parent, UID), (mine, UID), (theirs, 1000)):
        path.touch() if path != mine.parent else None
        os.chown(path, uid, 0)
    rig.ask(Wanted(mode="decommission"))
    assert not mine.exists()
    assert theirs.exists()


def test_a_folder_that_was_there_keeps_what_the_service_did_not_write(rig: Rig) -> None:
    """Somebody had /var/log/ai-client before; root's files in it are not ours."""
    log = rig.path("/var/log/ai-client")
    log.mkdir()
    (log / "before.log").write_text("theirs")
    rig.ask(Wanted())
    (log / "today.log").write_text("the service's")
    os.chown(log / "today.log", UID, 0)
    rig.ask(Wanted(mode="decommission"))
    assert [path.name for path in log.iterdir()] == ["before.log"]


def test_a_unit_of_somebody_else_is_refused(rig: Rig) -> None:
    """A hand-written ai-client.service from before the first deploy is not overwritten."""
    unit = rig.path(f"{UNITS}/ai-client.service")
    unit.write_text("[Service]\nExecStart=/srv/ours\n")
    answer = rig.ask(Wanted())
    assert answer.failed
    assert str(unit).removeprefix(str(rig.root)) in answer.message
    assert unit.read_text() == "[Service]\nExecStart=/srv/ours\n"


def test_a_host_that_no_deploy_reached_loses_nothing(rig: Rig) -> None:
    """The claim is made before the first contact: its decommission finds no marker, and so nothing of ours."""
    rig.host.add_identity(rig.host.ids())
    for path, text in THEIRS.items():
        rig.path(path).parent.mkdir(parents=True, exist_ok=True)
        rig.path(path).write_text(text)
    before = rig.files()
    answer = rig.ask(Wanted(mode="decommission"))
    assert (answer.failed, answer.changed) == (False, False)
    assert rig.files() == before
    assert rig.host.state["identity"]


def test_a_killed_first_run_has_what_it_made_on_record(rig: Rig) -> None:
    """The account was made and the run ended: the next run knows it for its own, and a decommission removes it."""
    before = rig.files()
    assert rig.ask_killed_at(Wanted(), "lay /etc/ai-client")
    assert rig.host.state["identity"]
    assert not rig.ask(Wanted()).failed
    rig.ask(Wanted(mode="decommission"))
    assert not rig.host.state["identity"]
    assert rig.files() == before
